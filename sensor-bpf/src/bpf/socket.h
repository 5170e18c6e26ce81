/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Sockets: asked for (judged by type and protocol), and what became of them at the exit of the system call. The far end
 * of a connection is read from the kernel's own socket; only that of a refused one is the caller's text.
 */
#ifndef CRESSET_SOCKET_H
#define CRESSET_SOCKET_H

#define IPPROTO_ICMP 1
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_ICMPV6 58
#define IPPROTO_SCTP 132
#define IPPROTO_SMC 256
#define IPPROTO_MPTCP 262
#define ANY_PROTOCOL 255
#define SOCK_SEQPACKET 5
#define SOCK_PACKET 10

/* The key of an internet socket; equal to policy::SocketKey::of, which has the table. */
static __always_inline __u32 socket_number(__u32 type, __u32 protocol)
{
	__u32 known = ANY_PROTOCOL;

	type &= SOCK_TYPE_MASK;
	switch (protocol) {
	case 0:
		known = type == SOCK_STREAM    ? IPPROTO_TCP :
			type == SOCK_DGRAM     ? IPPROTO_UDP :
			type == SOCK_SEQPACKET ? IPPROTO_SCTP : ANY_PROTOCOL;
		break;
	case IPPROTO_TCP:
	case IPPROTO_SMC:
	case IPPROTO_MPTCP:
		if (type == SOCK_STREAM)
			known = IPPROTO_TCP;
		break;
	case IPPROTO_SCTP:
		if (type == SOCK_STREAM || type == SOCK_SEQPACKET)
			known = protocol;
		break;
	case IPPROTO_UDP:
		if (type == SOCK_DGRAM)
			known = protocol;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (type == SOCK_DGRAM || type == SOCK_RAW)
			known = protocol;
		break;
	}
	return type << 8 | known;
}

static __always_inline void fill_socket(struct record *record, __u32 family, __u32 type, __u32 protocol,
					const struct decision *decision)
{
	fill_task(record);
	record->result = decision->outcome == OUTCOME_DENIED ? -EACCES : 0;
	record->call = CALL_SOCKET;
	record->family = family;
	record->type = type & SOCK_TYPE_MASK;
	record->protocol = protocol;
	record->decision = *decision;
}

/* Judges a socket; true when it is to be refused. */
static __always_inline bool judge_socket(const struct who *who, __u32 family, __u32 type, __u32 protocol,
					 struct decision *decision)
{
	__u32 number = family == AF_PACKET ? SOCK_PACKET << 8 | ANY_PROTOCOL : socket_number(type, protocol);

	if (!judge_number(who, CLASS_NETWORK, number, decision))
		return false;
	if (decision->action == ACTION_BLOCK && (contain || !native) && may_enforce(who))
		decision->outcome = OUTCOME_DENIED;
	return decision->outcome == OUTCOME_DENIED;
}

/*
 * In a program of the workload's cgroup. Those cannot have a scratch before 6.18, so the record is the fixed part, made
 * in the ring. An Audit is told once, when the socket is made.
 */
static __always_inline bool refuse_in_cgroup(__u32 family, __u32 type, __u32 protocol, bool making)
{
	struct decision decision = { .hook = HOOK_CGROUP };
	struct who who = {};
	struct record *record;
	bool refuse;

	if (!whoami_by_number(&who))
		return false;
	refuse = judge_socket(&who, family, type, protocol, &decision);
	if (decision.by == BY_NOBODY || !(making || refuse))
		return refuse;
	record = bpf_ringbuf_reserve(&verdicts, sizeof(*record), 0);
	if (!record) {
		lose(RING_VERDICTS, CLASS_NETWORK);
		return refuse;
	}
	begin_record(record, &who, KIND_SOCKET, CLASS_NETWORK);
	fill_socket(record, family, type, protocol, &decision);
	bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return refuse;
}

/* A cgroup program that returns 0 refuses with EPERM, unless it says otherwise. */
static __always_inline int refused(void)
{
	bpf_set_retval(-EACCES);
	return 0;
}

SEC("cgroup/sock_create")
int on_socket(struct bpf_sock *ctx)
{
	return refuse_in_cgroup(ctx->family, ctx->type, ctx->protocol, true) ? refused() : 1;
}

/* Sockets from before the rules: they exist, and lead nowhere. */
#define REFUSE_USE(name, section)                                                                    \
	SEC("cgroup/" section)                                                                       \
	int name(struct bpf_sock_addr *ctx)                                                          \
	{                                                                                            \
		return refuse_in_cgroup(ctx->family, ctx->type, ctx->protocol, false) ? refused()    \
										      : 1;       \
	}

REFUSE_USE(on_connect4, "connect4")
REFUSE_USE(on_connect6, "connect6")
REFUSE_USE(on_send4, "sendmsg4")
REFUSE_USE(on_send6, "sendmsg6")

static __always_inline struct sock *sock_of(int fd)
{
	struct file *file = file_of(fd);
	struct socket *socket;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* Name of a local socket: sockaddr_un without its family. */
static __always_inline __u32 append_local(struct scratch *scratch, struct sock *sk, __u32 at)
{
	struct unix_address *address = BPF_CORE_READ((struct unix_sock *)sk, addr);
	__u32 size;

	if (!sk || !address)
		return at;
	size = BPF_CORE_READ(address, len) - 2;
	asm volatile("" : "+r"(at));
	asm volatile("" : "+r"(size));
	if (size > 108 || at > TEXT_LIMIT)
		return at;
	if (bpf_probe_read_kernel(scratch->text + at, size, &address->name[0].sun_path))
		return at;
	scratch->record.lengths[TEXT_OBJECT] = size;
	return at + size;
}

/* One end of a socket, from the socket. */
static __noinline __u32 fill_end(struct scratch *scratch, struct sock *sk, bool far, __u32 at)
{
	struct record *record = &scratch->record;

	record->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	record->type = BPF_CORE_READ(sk, sk_type);
	record->protocol = BPF_CORE_READ(sk, sk_protocol);
	switch (record->family) {
	case AF_INET: {
		__be32 address = far ? BPF_CORE_READ(sk, __sk_common.skc_daddr) :
				       BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);

		__builtin_memcpy(record->address, &address, sizeof(address));
		break;
	}
	case AF_INET6: {
		struct in6_addr address = far ? BPF_CORE_READ(sk, __sk_common.skc_v6_daddr) :
						BPF_CORE_READ(sk, __sk_common.skc_v6_rcv_saddr);

		__builtin_memcpy(record->address, &address, sizeof(address));
		break;
	}
	case AF_UNIX:
		return append_local(scratch, far ? BPF_CORE_READ((struct unix_sock *)sk, peer) : sk, at);
	}
	record->port = far ? bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport)) :
			     BPF_CORE_READ(sk, __sk_common.skc_num);
	return at;
}

/* include/uapi/linux/{in,in6,un}.h, as bytes: family 0..2, port 2..4, IPv4 address 4..8, IPv6 address 8..24 */
static __noinline __u32 fill_end_by_caller(struct scratch *scratch, const void *name, __u32 at)
{
	struct record *record = &scratch->record;
	__u16 family = 0, port = 0;

	record->display_only |= MARK_RESOURCE;
	bpf_probe_read_user(&family, sizeof(family), name);
	record->family = family;
	if (family == AF_UNIX)
		return append_user(scratch, at, name + 2, TEXT_OBJECT);
	if (family != AF_INET && family != AF_INET6)
		return at;
	bpf_probe_read_user(&port, sizeof(port), name + 2);
	record->port = bpf_ntohs(port);
	if (family == AF_INET)
		bpf_probe_read_user(record->address, 4, name + 4);
	else
		bpf_probe_read_user(record->address, 16, name + 8);
	return at;
}

struct socket_use {
	const void *name;	/* the caller's address */
	__s32 fd;		/* that the call was handed */
	__s32 end;		/* of the socket whose end is told: of accept, the new one */
	__u32 kind;
	__u32 call;
	bool far;
};

static __noinline void used_socket(const struct who *who, const struct socket_use *use, long result)
{
	bool known = result >= 0 || (use->kind == KIND_CONNECT && result == -EINPROGRESS);
	struct scratch *scratch;
	struct sock *sk = NULL;
	__u32 at = 0;

	if (!(who->visible & VISIBLE_NETWORK))
		return;
	scratch = begin(who, use->kind, CLASS_NETWORK);
	if (!scratch) {
		lose(RING_TELEMETRY, CLASS_NETWORK);
		return;
	}
	if (known || !use->name)
		sk = sock_of(use->end);
	if (sk)
		at = fill_end(scratch, sk, use->far, at);
	else if (use->name)
		at = fill_end_by_caller(scratch, use->name, at);
	fill_task(&scratch->record);
	scratch->record.result = result;
	scratch->record.fd = use->fd;
	scratch->record.call = use->call;
	at = append_cwd(scratch, at);
	submit(scratch, at, RING_TELEMETRY);
}

static __noinline void made_socket(const struct who *who, __u32 family, __u32 type, __u32 protocol, long result)
{
	struct scratch *scratch;
	__u32 at;

	if (!(who->visible & VISIBLE_NETWORK))
		return;
	scratch = begin(who, KIND_SOCKET, CLASS_NETWORK);
	if (!scratch) {
		lose(RING_TELEMETRY, CLASS_NETWORK);
		return;
	}
	fill_task(&scratch->record);
	scratch->record.result = result;
	scratch->record.fd = result;
	scratch->record.call = CALL_SOCKET;
	scratch->record.family = family;
	scratch->record.type = type & SOCK_TYPE_MASK;
	scratch->record.protocol = protocol;
	at = append_cwd(scratch, 0);
	submit(scratch, at, RING_TELEMETRY);
}

#endif
