/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * A record: begun in the task's scratch, filled text by text, copied to a ring in one piece.
 *
 * reserve/submit wants a size known when the program is verified, and a record with its paths has between 200 bytes and
 * 7 KiB; so it is built where the path was walked anyway, and bpf_ringbuf_output copies what is there. Without room it
 * is counted. A decision was taken before and does not depend on any of this.
 */
#ifndef CRESSET_EMIT_H
#define CRESSET_EMIT_H

enum ring { RING_VERDICTS = 0, RING_TELEMETRY = 1 };

static __always_inline void begin_record(struct record *record, const struct who *who, __u8 kind, __u8 class)
{
	__builtin_memset(record, 0, sizeof(*record));
	record->workload = who->workload;
	record->exec_id = who->exec_id;
	record->parent_exec_id = who->parent_exec_id;
	record->kind = kind;
	record->class = class;
}

static __always_inline struct scratch *begin(const struct who *who, __u8 kind, __u8 class)
{
	struct scratch *scratch = bpf_task_storage_get(&scratches, bpf_get_current_task_btf(), 0,
						       BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!scratch)
		return NULL;
	begin_record(&scratch->record, who, kind, class);
	return scratch;
}

/* Number of a process in a pid namespace that it is seen from; 0: it is not seen from there. */
static __always_inline __u32 number_in(struct pid *pid, unsigned int level, struct pid_namespace **space)
{
	struct upid upid = {};
	void *numbers = (void *)pid + bpf_core_field_offset(struct pid, numbers);

	if (BPF_CORE_READ(pid, level) < level)
		return 0;
	bpf_core_read(&upid, sizeof(upid), (struct upid *)(numbers + level * bpf_core_type_size(struct upid)));
	if (*space && *space != upid.ns)
		return 0;
	*space = upid.ns;
	return upid.nr;
}

static __noinline void fill_task(struct record *record)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *parent = BPF_CORE_READ(task, real_parent, group_leader);
	struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	struct pid_namespace *space = NULL;
	unsigned int level = BPF_CORE_READ(pid, level);
	struct tty_struct *tty = BPF_CORE_READ(task, signal, tty);

	record->time = bpf_ktime_get_boot_ns();
	record->tgid = BPF_CORE_READ(task, tgid);
	record->tid = BPF_CORE_READ(task, pid);
	record->ppid = BPF_CORE_READ(parent, tgid);
	record->ns_pid = number_in(pid, level, &space);
	record->ns_ppid = number_in(BPF_CORE_READ(parent, thread_pid), level, &space);
	record->uid = BPF_CORE_READ(task, real_cred, uid.val);
	bpf_core_read(record->comm, sizeof(record->comm), &task->comm);
	if (tty)
		bpf_core_read(record->tty, sizeof(record->tty), &tty->name);
}

/* Appends a path that is told, not judged. */
static __always_inline __u32 append_path(struct scratch *scratch, struct path *path, __u32 at)
{
	struct vfsmount *mnt = BPF_CORE_READ(path, mnt);
	struct dentry *dentry = BPF_CORE_READ(path, dentry);

	aim(scratch, 0, 0);
	return mnt && dentry ? walk_path(scratch, mnt, dentry, at) : at;
}

static __always_inline __u32 append_cwd(struct scratch *scratch, __u32 at)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fs_struct *fs = BPF_CORE_READ(task, fs);
	__u32 from = at;

	scratch->walk.cut = 0;
	if (fs)
		at = append_path(scratch, &fs->pwd, at);
	if (scratch->walk.cut)
		scratch->record.truncated |= MARK_CWD;
	scratch->record.lengths[TEXT_CWD] = at - from;
	return at;
}

/* Appends a string, NUL not included; *cut when it did not fit. */
static __always_inline __u32 append_string(struct scratch *scratch, __u32 at, const char *string, bool user,
					   bool *cut)
{
	long length;

	asm volatile("" : "+r"(at));
	if (at > TEXT_LIMIT) {
		*cut = true;
		return at;
	}
	length = user ? bpf_probe_read_user_str(scratch->text + at, TEXT_GUARD, string) :
			bpf_probe_read_kernel_str(scratch->text + at, TEXT_GUARD, string);
	if (length <= 0 || length >= TEXT_GUARD)
		*cut = true;
	if (length <= 0)
		return at;
	return at + (__u32)length - 1;
}

/* Hands the record over. Busy rings wake the reader; otherwise it looks by itself every few milliseconds. */
static __noinline void submit(struct scratch *scratch, __u32 end, __u32 ring)
{
	__u32 class = scratch->record.class;
	__u64 size;
	long failed;

	asm volatile("" : "+r"(end));
	if (end > TEXT_LIMIT + TEXT_GUARD)
		end = TEXT_LIMIT + TEXT_GUARD;
	size = sizeof(struct record) + end;
	if (ring == RING_VERDICTS) {
		__u64 waiting = bpf_ringbuf_query(&verdicts, BPF_RB_AVAIL_DATA);

		failed = bpf_ringbuf_output(&verdicts, &scratch->record, size,
					    waiting > (1 << 20) ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	} else {
		__u64 waiting = bpf_ringbuf_query(&telemetry, BPF_RB_AVAIL_DATA);

		failed = bpf_ringbuf_output(&telemetry, &scratch->record, size,
					    waiting > (2 << 20) ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
	}
	asm volatile("" : "+r"(class));
	if (failed && class < CLASSES)
		__sync_fetch_and_add(&lost[ring == RING_VERDICTS ? 0 : 1][class], 1);
}

/* A record that found no scratch is lost too. */
static __always_inline void lose(__u32 ring, __u32 class)
{
	__sync_fetch_and_add(&lost[ring][class], 1);
}

static __always_inline void tell(struct scratch *scratch, const struct decision *decision, __u32 end)
{
	if (decision->by == BY_NOBODY) {
		submit(scratch, end, RING_TELEMETRY);
		return;
	}
	scratch->record.decision = *decision;
	submit(scratch, end, RING_VERDICTS);
}

#endif
