/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Images and processes: exec and exit.
 *
 * At sched_process_exec the new image is in place and has not run: its file is a kernel object, its arguments are those
 * that it will see. On the native tier a Block is carried out here, by SIGKILL before the first instruction.
 */
#ifndef CRESSET_EXEC_H
#define CRESSET_EXEC_H

#define NR_EXECVEAT 322

/* The image that a process runs, as text. */
static __noinline __u32 append_parent(struct scratch *scratch, __u32 at)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct file *exe = BPF_CORE_READ(task, real_parent, mm, exe_file);
	__u32 from = at;

	scratch->walk.cut = 0;
	if (exe)
		at = append_path(scratch, &exe->f_path, at);
	if (scratch->walk.cut)
		scratch->record.truncated |= MARK_PARENT;
	scratch->record.lengths[TEXT_PARENT] = at - from;
	return at;
}

/* The arguments from the new image's own memory, each with its NUL. */
static __noinline __u32 append_args(struct scratch *scratch, __u32 at)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 start = BPF_CORE_READ(task, mm, arg_start);
	__u64 left = BPF_CORE_READ(task, mm, arg_end) - start;
	__u32 from = at;

	for (int part = 0; part < 3 && left; part++) {
		__u64 size = left < TEXT_GUARD ? left : TEXT_GUARD;

		asm volatile("" : "+r"(at));
		asm volatile("" : "+r"(size));
		if (at > TEXT_LIMIT || size > TEXT_GUARD)
			break;
		if (bpf_probe_read_user(scratch->text + at, size, (void *)start))
			break;
		at += size;
		start += size;
		left -= size;
	}
	if (left)
		scratch->record.truncated |= MARK_ARGS;
	scratch->record.lengths[TEXT_ARGS] = at - from;
	return at;
}

static __always_inline __u32 append_image(struct scratch *scratch, struct linux_binprm *bprm, __u32 at)
{
	__u32 from = at;
	bool cut = false;

	at = append_string(scratch, at, BPF_CORE_READ(bprm, filename), false, &cut);
	if (cut)
		scratch->record.truncated |= MARK_SOURCE;
	scratch->record.lengths[TEXT_SECOND] = at - from;
	at = append_cwd(scratch, at);
	return append_parent(scratch, at);
}

static __always_inline __u8 exec_call(struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	return BPF_CORE_READ(regs, orig_ax) == NR_EXECVEAT ? CALL_EXECVEAT : CALL_EXECVE;
}

/* A new image has a new id; its parent is the image of the parent process, on the same side of the workload's border. */
static __always_inline void renew(struct task_struct *task, struct who *who, struct decision *pending)
{
	struct label *label = bpf_task_storage_get(&labels, task, 0, 0);
	struct task_struct *parent = task->real_parent;
	struct label *above = NULL;
	bool host = is_host(who);

	if (parent)
		above = bpf_task_storage_get(&labels, parent, 0, 0);
	who->exec_id = __sync_fetch_and_add(&next_exec_id, 1);
	who->parent_exec_id = above && (above->labelled == 0) == host ? above->exec_id : 0;
	if (!host)
		put_image(task, who);
	if (!label)
		return;
	label->exec_id = who->exec_id;
	label->parent_exec_id = who->parent_exec_id;
	*pending = label->pending;
	label->pending.by = BY_NOBODY;
}

/*
 * Where the life of processes is told. Events of a workload cannot do without it; a machine on which much happens must
 * not cost the workloads their decisions.
 */
static __always_inline __u32 ring_of(const struct who *who)
{
	return is_host(who) ? RING_TELEMETRY : RING_VERDICTS;
}

/* Native tier: what was decided is carried out on the process. */
static __always_inline void kill_if(const struct who *who, __u32 wanted, struct decision *decision)
{
	decision->outcome = OUTCOME_PASSED;
	if (decision->action == ACTION_BLOCK && wanted && may_enforce(who) && !bpf_send_signal(SIGKILL))
		decision->outcome = OUTCOME_KILLED;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct decision decision = {};
	struct scratch *scratch;
	struct who who = {};
	struct file *file;
	__u32 at = 0;

	if (!who_or_host(&who))
		return 0;
	renew(task, &who, &decision);
	scratch = begin(&who, KIND_EXEC, CLASS_PROCESS);
	file = BPF_CORE_READ(bprm, file);
	if (!scratch) {
		if (native && judge_blind(&who, CLASS_PROCESS, &decision))
			kill_if(&who, contain, &decision);
		lose(ring_of(&who), CLASS_PROCESS);
		return 0;
	}
	if (native) {
		decision.hook = HOOK_EXEC;
		if (judge_path(&who, scratch, &file->f_path, CLASS_PROCESS, &decision, &at))
			kill_if(&who, contain, &decision);
	} else {
		tell_path(scratch, &file->f_path, &at);
	}
	fill_task(&scratch->record);
	scratch->record.call = exec_call(task);
	at = append_image(scratch, bprm, at);
	at = append_args(scratch, at);
	scratch->record.decision = decision;
	submit(scratch, at, ring_of(&who));
	return 0;
}

/*
 * Is this the end of the process? Threads that exit together all find that none is left, and only one of them may say
 * so: the first to mark the leader, whose label outlives them.
 */
static __always_inline bool ends_process(struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct label *label = NULL;

	if (BPF_CORE_READ(task, signal, live.counter) != 0)
		return false;
	if (leader)
		label = bpf_task_storage_get(&labels, leader, 0, 0);
	return !label || __sync_fetch_and_add(&label->exited, 1) == 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	struct signal_struct *signal;
	struct scratch *scratch;
	struct who who = {};
	__u32 at, tgid;

	if (!who_or_host(&who))
		return 0;
	if (is_host(&who) && !who.exec_id)
		return 0; /* its image is not known, so there is none to forget */
	if (!ends_process(task))
		return 0;
	signal = BPF_CORE_READ(task, signal);
	tgid = BPF_CORE_READ(task, tgid);
	bpf_map_delete_elem(&images, &tgid);
	scratch = begin(&who, KIND_EXIT, CLASS_PROCESS);
	if (!scratch) {
		lose(ring_of(&who), CLASS_PROCESS);
		return 0;
	}
	fill_task(&scratch->record);
	scratch->record.arg = BPF_CORE_READ(signal, flags) & SIGNAL_GROUP_EXIT ?
				      BPF_CORE_READ(signal, group_exit_code) :
				      BPF_CORE_READ(task, group_leader, exit_code);
	at = append_cwd(scratch, 0);
	submit(scratch, at, ring_of(&who));
	return 0;
}

#endif
