/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The records: the one definition. Rust gets these types from the object's BTF.
 *
 *   struct record, fixed size ‖ texts, one after the other without separators, of lengths[0..TEXTS]
 *
 * Every field is a plain number, so any bytes are a record and decoding cannot meet an invalid value.
 */
#ifndef CRESSET_EVENT_H
#define CRESSET_EVENT_H

enum kind {
	KIND_EXEC = 1,
	KIND_EXIT = 2,
	KIND_OPEN = 3,
	KIND_UNLINK = 4,
	KIND_RENAME = 5,
	KIND_SOCKET = 6,
	KIND_CONNECT = 7,
	KIND_ACCEPT = 8,
	KIND_LISTEN = 9,
	KIND_BIND = 10,
	KIND_CAPABILITY = 11,
	KIND_SYSCALL = 12,
};

/* Who decided; BY_NOBODY: the record carries no decision. */
enum by {
	BY_NOBODY = 0,
	BY_RULE = 1,
	BY_POSTURE = 2,
};

enum action {
	ACTION_NONE = 0,
	ACTION_ALLOW = 1,
	ACTION_AUDIT = 2,
	ACTION_BLOCK = 3,
};

enum outcome {
	OUTCOME_PASSED = 0,
	OUTCOME_DENIED = 1,
	OUTCOME_KILLED = 2,
};

enum hook {
	HOOK_EXEC = 1,
	HOOK_SYSCALL = 2,
	HOOK_CGROUP = 3,
	HOOK_BPRM_CHECK = 4,
	HOOK_FILE_OPEN = 5,
	HOOK_MMAP_FILE = 6,
	HOOK_PATH_UNLINK = 7,
	HOOK_PATH_RENAME = 8,
	HOOK_PATH_TRUNCATE = 9,
	HOOK_SOCKET_CREATE = 10,
	HOOK_CAPABLE = 11,
	HOOK_PATH_LINK = 12,
};

enum call {
	CALL_NONE = 0,
	CALL_EXECVE = 1,
	CALL_EXECVEAT = 2,
	CALL_OPEN = 3,
	CALL_OPENAT = 4,
	CALL_OPENAT2 = 5,
	CALL_CREAT = 6,
	CALL_UNLINK = 7,
	CALL_UNLINKAT = 8,
	CALL_RMDIR = 9,
	CALL_RENAME = 10,
	CALL_RENAMEAT = 11,
	CALL_RENAMEAT2 = 12,
	CALL_CONNECT = 13,
	CALL_ACCEPT = 14,
	CALL_ACCEPT4 = 15,
	CALL_LISTEN = 16,
	CALL_BIND = 17,
	CALL_SOCKET = 18,
	CALL_TRUNCATE = 19,
};

/* The texts of a record, in order. */
enum text {
	TEXT_OBJECT = 0,	/* path; old name; path of a local socket */
	TEXT_SECOND = 1,	/* the caller's name of an exec; new name */
	TEXT_CWD = 2,
	TEXT_PARENT = 3,	/* image of the parent; of mount, the type of the file system */
	TEXT_ARGS = 4,		/* each argument ends with NUL; of a system call, five numbers of 8 bytes */
	TEXTS = 5,
};

/* Bits of truncated and display_only: those of the event's fields of these names. */
enum mark {
	MARK_RESOURCE = 1,
	MARK_ARGS = 2,
	MARK_CWD = 4,
	MARK_PROCESS_NAME = 8,
	MARK_PARENT = 16,
	MARK_SOURCE = 32,
};

enum {
	HAS_OWNER = 1,	/* flags: owner is known */
	HAS_FAULT = 2,	/* flags: decided without consulting rules */
};

struct decision {
	__u32 set;
	__u32 generation;
	__u32 slot;
	__u8 by;
	__u8 action;
	__u8 outcome;
	__u8 hook;
};

struct record {
	__u64 time;		/* CLOCK_BOOTTIME, ns */
	__u64 exec_id;
	__u64 parent_exec_id;
	__u32 workload;		/* its index, or HOST */
	__u32 tgid, tid, ppid;	/* initial pid namespace */
	__u32 ns_pid, ns_ppid;	/* the task's own */
	__u32 uid;
	struct decision decision;
	__s32 result;
	__u32 truncated;
	__u32 display_only;
	__u32 flags;
	__s32 fd;		/* descriptor, or the one that a name starts from */
	__u32 arg;		/* O_*, AT_*, exit status, number of a capability or system call */
	__u32 owner;
	__u16 family;
	__u16 port;		/* host order */
	__u16 protocol;
	__u8 type;
	__u8 kind;
	__u8 call;
	__u8 class;
	__u16 lengths[TEXTS];
	__u8 address[16];
	char comm[16];
	char tty[16];
};

#endif
