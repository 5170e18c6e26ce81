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
		.fd = kind == KIND_ACCEPT ? result : (long)of->a,
		.name = kind == KIND_CONNECT || kind == KIND_BIND ? (void *)of->b : NULL,
		.far = kind == KIND_CONNECT || kind == KIND_ACCEPT,
	};

	used_socket(who, &use, result);
}

/* System calls that a policy names are told; nothing is refused here. */
static __noinline void judge_call(const struct who *who, __u32 number, long result)
{
	struct decision decision = { .hook = HOOK_SYSCALL };
	struct scratch *scratch;
	__u32 at;

	if (!judge_number(who, CLASS_SYSCALL, number, &decision))
		return;
	scratch = begin(who, KIND_SYSCALL, CLASS_SYSCALL);
	if (!scratch) {
		lose(RING_VERDICTS, CLASS_SYSCALL);
		return;
	}
	fill_task(&scratch->record);
	scratch->record.result = result;
	scratch->record.arg = number;
	at = append_cwd(scratch, 0);
	tell(scratch, &decision, at);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit, struct pt_regs *regs, long result)
{
	struct arguments of;
	struct who who = {};
	__u32 number;

	if (!whoami(&who))
		return 0;
	if (BPF_CORE_READ(regs, cs) != USER_CS_64)
		return 0;
	take_arguments(&of, regs);
	number = BPF_CORE_READ(regs, orig_ax) & ~X32_BIT;
	judge_call(&who, number, result);
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
