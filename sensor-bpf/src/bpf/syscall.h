/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The exit of a system call: what was asked (the arguments are still in the registers) and what came of it.
 * 64-bit calls only; numbers from arch/x86/entry/syscalls/syscall_64.tbl.
 */
#ifndef CRESSET_SYSCALL_H
#define CRESSET_SYSCALL_H

#define USER_CS_64 0x33 /* arch/x86/include/asm/segment.h: __USER_CS; 32-bit code runs in 0x23 */
#define X32_BIT 0x40000000

enum number {
	NR_OPEN = 2,
	NR_SOCKET = 41,
	NR_CONNECT = 42,
	NR_ACCEPT = 43,
	NR_BIND = 49,
	NR_LISTEN = 50,
	NR_RENAME = 82,
	NR_RMDIR = 84,
	NR_CREAT = 85,
	NR_UNLINK = 87,
	NR_SETUID = 105,
	NR_SETGID = 106,
	NR_MOUNT = 165,
	NR_UMOUNT2 = 166,
	NR_OPENAT = 257,
	NR_UNLINKAT = 263,
	NR_RENAMEAT = 264,
	NR_ACCEPT4 = 288,
	NR_RENAMEAT2 = 316,
	NR_OPENAT2 = 437,
};

struct arguments {
	__u64 a, b, c, d, e;
};

static __always_inline void take_arguments(struct arguments *of, struct pt_regs *regs)
{
	of->a = BPF_CORE_READ(regs, di);
	of->b = BPF_CORE_READ(regs, si);
	of->c = BPF_CORE_READ(regs, dx);
	of->d = BPF_CORE_READ(regs, r10);
	of->e = BPF_CORE_READ(regs, r8);
}

static __always_inline void on_open(const struct who *who, const struct arguments *of, __u32 call, long result)
{
	struct opening opening = { .call = call, .directory = AT_FDCWD };

	switch (call) {
	case CALL_OPEN:
		opening.name = (void *)of->a;
		opening.flags = of->b;
		break;
	case CALL_CREAT:
		opening.name = (void *)of->a;
		opening.flags = CREAT_FLAGS;
		break;
	default:
		opening.directory = of->a;
		opening.name = (void *)of->b;
		opening.flags = call == CALL_OPENAT ? of->c : flags_of_openat2((void *)of->c);
	}
	opened(who, &opening, result);
}

static __always_inline void on_naming(const struct who *who, const struct arguments *of, __u32 call, long result)
{
	struct naming naming = { .call = call, .directory = AT_FDCWD, .name = (void *)of->a };

	switch (call) {
	case CALL_UNLINKAT:
		naming.directory = of->a;
		naming.name = (void *)of->b;
		naming.flags = of->c;
		break;
	case CALL_RENAME:
		naming.to = (void *)of->b;
		break;
	case CALL_RENAMEAT:
	case CALL_RENAMEAT2:
		naming.directory = of->a;
		naming.name = (void *)of->b;
		naming.to = (void *)of->d;
		naming.flags = call == CALL_RENAMEAT2 ? of->e : 0;
		break;
	}
	named_otherwise(who, &naming, result);
}

static __always_inline void on_use(const struct who *who, const struct arguments *of, __u32 call, __u32 kind,
				   long result)
{
	struct socket_use use = {
		.kind = kind,
		.call = call,
		.fd = of->a,
		.end = kind == KIND_ACCEPT ? result : (long)of->a,
		.name = kind == KIND_CONNECT || kind == KIND_BIND ? (void *)of->b : NULL,
		.far = kind == KIND_CONNECT || kind == KIND_ACCEPT,
	};

	used_socket(who, &use, result);
}

/*
 * Which arguments of a system call are names, counted from 1: the one that it acts on, another one, and the directory that
 * a relative one starts from. For display: whoever called may change them meanwhile.
 */
#define NAMES(first, second) ((first) | (second) << 4)
#define NAMES_AT(directory, first, second) (NAMES(first, second) | (directory) << 8)

static const __u16 names_of[] = {
	[2] = NAMES(1, 0), /* open */
	[4] = NAMES(1, 0), /* stat */
	[6] = NAMES(1, 0), /* lstat */
	[21] = NAMES(1, 0), /* access */
	[76] = NAMES(1, 0), /* truncate */
	[80] = NAMES(1, 0), /* chdir */
	[82] = NAMES(1, 2), /* rename */
	[83] = NAMES(1, 0), /* mkdir */
	[84] = NAMES(1, 0), /* rmdir */
	[85] = NAMES(1, 0), /* creat */
	[86] = NAMES(1, 2), /* link */
	[87] = NAMES(1, 0), /* unlink */
	[88] = NAMES(2, 1), /* symlink */
	[89] = NAMES(1, 0), /* readlink */
	[90] = NAMES(1, 0), /* chmod */
	[92] = NAMES(1, 0), /* chown */
	[94] = NAMES(1, 0), /* lchown */
	[132] = NAMES(1, 0), /* utime */
	[133] = NAMES(1, 0), /* mknod */
	[137] = NAMES(1, 0), /* statfs */
	[155] = NAMES(1, 2), /* pivot_root */
	[161] = NAMES(1, 0), /* chroot */
	[163] = NAMES(1, 0), /* acct */
	[165] = NAMES(2, 1), /* mount */
	[166] = NAMES(1, 0), /* umount2 */
	[167] = NAMES(1, 0), /* swapon */
	[168] = NAMES(1, 0), /* swapoff */
	[188] = NAMES(1, 0), /* setxattr */
	[189] = NAMES(1, 0), /* lsetxattr */
	[191] = NAMES(1, 0), /* getxattr */
	[192] = NAMES(1, 0), /* lgetxattr */
	[194] = NAMES(1, 0), /* listxattr */
	[195] = NAMES(1, 0), /* llistxattr */
	[197] = NAMES(1, 0), /* removexattr */
	[198] = NAMES(1, 0), /* lremovexattr */
	[235] = NAMES(1, 0), /* utimes */
	[254] = NAMES(2, 0), /* inotify_add_watch */
	[257] = NAMES_AT(1, 2, 0), /* openat */
	[258] = NAMES_AT(1, 2, 0), /* mkdirat */
	[259] = NAMES_AT(1, 2, 0), /* mknodat */
	[260] = NAMES_AT(1, 2, 0), /* fchownat */
	[261] = NAMES_AT(1, 2, 0), /* futimesat */
	[262] = NAMES_AT(1, 2, 0), /* newfstatat */
	[263] = NAMES_AT(1, 2, 0), /* unlinkat */
	[264] = NAMES_AT(1, 2, 4), /* renameat */
	[265] = NAMES_AT(1, 2, 4), /* linkat */
	[266] = NAMES_AT(2, 3, 1), /* symlinkat */
	[267] = NAMES_AT(1, 2, 0), /* readlinkat */
	[268] = NAMES_AT(1, 2, 0), /* fchmodat */
	[269] = NAMES_AT(1, 2, 0), /* faccessat */
	[280] = NAMES_AT(1, 2, 0), /* utimensat */
	[301] = NAMES_AT(4, 5, 0), /* fanotify_mark */
	[303] = NAMES_AT(1, 2, 0), /* name_to_handle_at */
	[316] = NAMES_AT(1, 2, 4), /* renameat2 */
	[332] = NAMES_AT(1, 2, 0), /* statx */
};

static __always_inline __u64 argument(const struct arguments *of, __u32 place)
{
	switch (place & 0xf) {
	case 1:
		return of->a;
	case 2:
		return of->b;
	case 3:
		return of->c;
	case 4:
		return of->d;
	case 5:
		return of->e;
	}
	return 0;
}

/* Appends the names among the arguments, and the arguments themselves as numbers. */
static __always_inline __u32 append_arguments(struct scratch *scratch, const struct arguments *of, __u32 number)
{
	__u32 places = number < sizeof(names_of) / sizeof(*names_of) ? names_of[number] : 0;
	__u32 at = 0;

	scratch->record.fd = places >> 8 ? (__s32)argument(of, places >> 8) : AT_FDCWD;
	if (places & 0xf)
		at = append_user(scratch, at, (void *)argument(of, places), TEXT_OBJECT);
	if (places >> 4 & 0xf)
		at = append_user(scratch, at, (void *)argument(of, places >> 4), TEXT_SECOND);
	at = append_cwd(scratch, at);
	if (number == NR_MOUNT)
		at = append_user(scratch, at, (void *)of->c, TEXT_PARENT);
	asm volatile("" : "+r"(at));
	if (at > TEXT_LIMIT)
		return at;
	bpf_probe_read_kernel(scratch->text + at, sizeof(*of), of);
	scratch->record.lengths[TEXT_ARGS] = sizeof(*of);
	return at + sizeof(*of);
}

/* Told where the use of capabilities is visible. */
static __always_inline bool is_privileged(__u32 number)
{
	return number == NR_SETUID || number == NR_SETGID || number == NR_MOUNT || number == NR_UMOUNT2;
}

/* System calls that a policy names are told; nothing is refused here. */
static __noinline void judge_call(const struct who *who, const struct arguments *of, __u32 number, long result)
{
	struct decision decision = { .hook = HOOK_SYSCALL };
	bool decided = judge_number(who, CLASS_SYSCALL, number, &decision);
	struct scratch *scratch;

	if (!decided && !((who->visible & VISIBLE_CAPABILITY) && is_privileged(number)))
		return;
	scratch = begin(who, KIND_SYSCALL, CLASS_SYSCALL);
	if (!scratch) {
		lose(decided ? RING_VERDICTS : RING_TELEMETRY, CLASS_SYSCALL);
		return;
	}
	fill_task(&scratch->record);
	scratch->record.result = result;
	scratch->record.arg = number;
	tell(scratch, &decision, append_arguments(scratch, of, number));
}

/* Which bit of visibility tells a system call; 0: none does. */
static __always_inline __u32 visible_by(__u32 number)
{
	switch (number) {
	case NR_OPEN:
	case NR_OPENAT:
	case NR_OPENAT2:
	case NR_CREAT:
	case NR_UNLINK:
	case NR_UNLINKAT:
	case NR_RMDIR:
	case NR_RENAME:
	case NR_RENAMEAT:
	case NR_RENAMEAT2:
		return VISIBLE_FILE;
	case NR_SOCKET:
	case NR_CONNECT:
	case NR_ACCEPT:
	case NR_ACCEPT4:
	case NR_BIND:
	case NR_LISTEN:
		return VISIBLE_NETWORK;
	}
	return is_privileged(number) ? VISIBLE_CAPABILITY : 0;
}

/*
 * Every call of every task comes by here, so the host's are sorted out first: those that nothing tells, and names that
 * are not there, which no event tells of and which are half of what a machine opens.
 */
static __always_inline bool is_told_of_host(__u32 number, long result)
{
	return host_visible & visible_by(number) && result != -ENOENT;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit, struct pt_regs *regs, long result)
{
	struct arguments of;
	struct who who = {};
	__u32 number;

	number = regs->orig_ax & ~X32_BIT;
	if (!whoami(&who) && !(is_told_of_host(number, result) && as_host(&who)))
		return 0;
	if (BPF_CORE_READ(regs, cs) != USER_CS_64)
		return 0;
	take_arguments(&of, regs);
	judge_call(&who, &of, number, result);
	switch (number) {
	case NR_OPEN:
		on_open(&who, &of, CALL_OPEN, result);
		break;
	case NR_OPENAT:
		on_open(&who, &of, CALL_OPENAT, result);
		break;
	case NR_OPENAT2:
		on_open(&who, &of, CALL_OPENAT2, result);
		break;
	case NR_CREAT:
		on_open(&who, &of, CALL_CREAT, result);
		break;
	case NR_UNLINK:
		on_naming(&who, &of, CALL_UNLINK, result);
		break;
	case NR_UNLINKAT:
		on_naming(&who, &of, CALL_UNLINKAT, result);
		break;
	case NR_RMDIR:
		on_naming(&who, &of, CALL_RMDIR, result);
		break;
	case NR_RENAME:
		on_naming(&who, &of, CALL_RENAME, result);
		break;
	case NR_RENAMEAT:
		on_naming(&who, &of, CALL_RENAMEAT, result);
		break;
	case NR_RENAMEAT2:
		on_naming(&who, &of, CALL_RENAMEAT2, result);
		break;
	case NR_SOCKET:
		made_socket(&who, of.a, of.b, of.c, result);
		break;
	case NR_CONNECT:
		on_use(&who, &of, CALL_CONNECT, KIND_CONNECT, result);
		break;
	case NR_ACCEPT:
		on_use(&who, &of, CALL_ACCEPT, KIND_ACCEPT, result);
		break;
	case NR_ACCEPT4:
		on_use(&who, &of, CALL_ACCEPT4, KIND_ACCEPT, result);
		break;
	case NR_BIND:
		on_use(&who, &of, CALL_BIND, KIND_BIND, result);
		break;
	case NR_LISTEN:
		on_use(&who, &of, CALL_LISTEN, KIND_LISTEN, result);
		break;
	}
	return 0;
}

#endif
