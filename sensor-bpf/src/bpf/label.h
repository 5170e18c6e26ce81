/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Who is it: the label of a task.
 *
 * Identity is never looked up by namespace or pid, which the task can change. It is set when the task enters the
 * workload's cgroup, inherited at fork, and stays. Where a task has none (threads that moved with their process,
 * io_uring workers), its leader's is taken, then that of its cgroup or the nearest ancestor that is a workload's.
 *
 * Where host visibility is on, programs that tell take a task in no workload as HOST. That is an answer and not a label:
 * no task keeps it, and nothing is judged or enforced by it, because no workload has that index.
 */
#ifndef CRESSET_LABEL_H
#define CRESSET_LABEL_H

#define CGROUP_DEPTH 32

/* A label by value, good also when no memory was found to keep it. */
struct who {
	__u32 workload;
	__u32 set;
	__u32 visible;
	__u32 kept;
	__u64 cgroup;
	__u64 exec_id;
	__u64 parent_exec_id;
};

static __always_inline void take(struct who *who, const struct label *label)
{
	who->workload = label->workload;
	who->cgroup = label->cgroup;
	who->exec_id = label->exec_id;
	who->parent_exec_id = label->parent_exec_id;
}

static __always_inline struct workload *workload_at(__u32 index)
{
	asm volatile("" : "+r"(index));
	if (index >= MAX_WORKLOADS)
		return NULL;
	return &workloads[index];
}

/* The workload of a cgroup: its own, or the nearest above it. False: none. */
static __noinline bool find_by_cgroup(struct cgroup *cgroup, struct who *who)
{
	for (int depth = 0; depth < CGROUP_DEPTH && cgroup; depth++) {
		__u64 id = BPF_CORE_READ(cgroup, kn, id);
		__u32 *index = bpf_map_lookup_elem(&cgroups, &id);

		if (index) {
			who->workload = *index;
			who->cgroup = id;
			who->exec_id = 0;
			who->parent_exec_id = 0;
			return true;
		}
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
	}
	return false;
}

/* Is the task in this cgroup, or in one below it, in the v2 hierarchy? */
static __noinline bool is_inside(struct task_struct *task, __u64 id)
{
	struct cgroup *cgroup = BPF_CORE_READ(task, cgroups, dfl_cgrp);

	for (int depth = 0; depth < CGROUP_DEPTH && cgroup; depth++) {
		if (BPF_CORE_READ(cgroup, kn, id) == id)
			return true;
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
	}
	return false;
}

/* Keeps a process's label by its number, too. */
static __always_inline void put_image(struct task_struct *task, const struct who *who)
{
	struct image image = {
		.cgroup = who->cgroup,
		.exec_id = who->exec_id,
		.parent_exec_id = who->parent_exec_id,
		.workload = who->workload,
	};
	__u32 tgid = BPF_CORE_READ(task, tgid);

	if ((__u32)BPF_CORE_READ(task, pid) == tgid)
		bpf_map_update_elem(&images, &tgid, &image, BPF_ANY);
}

static __always_inline void put_label(struct task_struct *task, const struct who *who)
{
	struct label *label =
		bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!label) {
		__sync_fetch_and_add(&unlabelled, 1);
		return;
	}
	put_image(task, who);
	label->workload = who->workload;
	label->cgroup = who->cgroup;
	label->exec_id = who->exec_id;
	label->parent_exec_id = who->parent_exec_id;
	label->pending.by = BY_NOBODY;
	label->labelled = 1;
}

/* No label yet: from the leader, then from the cgroup. What is found is kept, and so is that nothing was. */
static __noinline bool search(struct who *who)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct task_struct *leader = task->group_leader;
	__u32 seen = epoch;
	struct label *label = NULL;

	if (leader)
		label = bpf_task_storage_get(&labels, leader, 0, 0);
	if (label && label->labelled) {
		take(who, label);
		put_label(task, who);
		return true;
	}
	if (find_by_cgroup(BPF_CORE_READ(task, cgroups, dfl_cgrp), who)) {
		put_label(task, who);
		return true;
	}
	label = bpf_task_storage_get(&labels, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (label)
		label->epoch = seen;
	return false;
}

/* What the workload has now. */
static __always_inline void look_up(struct who *who)
{
	struct workload *workload = workload_at(who->workload);

	/* a workload that is gone: its last tasks are seen, and no more */
	who->set = 0;
	who->visible = 0;
	if (workload && workload->cgroup == who->cgroup) {
		who->set = workload->set;
		who->visible = workload->visible;
	}
}

/* The current task's label. False: it is in no workload; that costs one lookup. */
static __always_inline bool whoami(struct who *who)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct label *label = bpf_task_storage_get(&labels, task, 0, 0);

	if (label && label->labelled)
		take(who, label);
	else if (label && label->epoch == epoch)
		return false;
	else if (!search(who))
		return false;

	look_up(who);
	return true;
}

/* The current task is in no workload; as the host's it is told of. Kernel threads and the sensor itself never are. */
static __always_inline bool as_host(struct who *who)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 visible = host_visible;
	struct label *label;

	if (!visible || (__u32)task->tgid == own_tgid || task->flags & PF_KTHREAD)
		return false;
	__builtin_memset(who, 0, sizeof(*who));
	who->workload = HOST;
	who->visible = visible;
	label = bpf_task_storage_get(&labels, task, 0, 0);
	if (label && !label->labelled) {
		who->exec_id = label->exec_id;
		who->parent_exec_id = label->parent_exec_id;
	}
	return true;
}

/* For programs that only tell. */
static __always_inline bool who_or_host(struct who *who)
{
	return whoami(who) || as_host(who);
}

static __always_inline bool is_host(const struct who *who)
{
	return who->workload == HOST;
}

/* Like whoami, for a program of the workload's cgroup. */
static __always_inline bool whoami_by_number(struct who *who)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct image *image = bpf_map_lookup_elem(&images, &tgid);
	struct task_struct *task = bpf_get_current_task_btf();

	if (image) {
		who->workload = image->workload;
		who->cgroup = image->cgroup;
		who->exec_id = image->exec_id;
		who->parent_exec_id = image->parent_exec_id;
	} else if (!find_by_cgroup(BPF_CORE_READ(task, cgroups, dfl_cgrp), who)) {
		return false;
	}
	look_up(who);
	return true;
}

/*
 * May this decision change what happens? On the native tier only while the task is still below the workload's own
 * cgroup: a wrong label must never cost a process that the workload did not start.
 */
static __always_inline bool may_enforce(const struct who *who)
{
	struct workload *workload = workload_at(who->workload);
	__u64 deadline;

	if (!workload || !who->cgroup || workload->cgroup != who->cgroup)
		return false;
	deadline = workload->deadline;
	if (deadline && bpf_ktime_get_boot_ns() >= deadline)
		return false;
	return !native || is_inside(bpf_get_current_task_btf(), who->cgroup);
}

/* CLONE_INTO_CGROUP: a child that begins in another cgroup than its parent's, which may be a workload's. */
static __always_inline bool was_cloned_into(struct task_struct *parent, struct task_struct *child, struct who *who)
{
	struct cgroup *cgroup = BPF_CORE_READ(child, cgroups, dfl_cgrp);

	return cgroup != BPF_CORE_READ(parent, cgroups, dfl_cgrp) && find_by_cgroup(cgroup, who);
}

/* A child of the host runs its parent's image, whose name its events bear. It stays without a label. */
static __always_inline void inherit_image(struct task_struct *parent, struct task_struct *child)
{
	struct label *from = bpf_task_storage_get(&labels, parent, 0, 0), *to;

	if (!from || from->labelled || !from->exec_id)
		return;
	to = bpf_task_storage_get(&labels, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!to || to->labelled)
		return;
	to->exec_id = from->exec_id;
	to->parent_exec_id = from->parent_exec_id;
}

/* A new process or thread has its parent's label before it runs. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct who who = {};

	if (whoami(&who) || was_cloned_into(parent, child, &who))
		put_label(child, &who);
	else if (host_visible)
		inherit_image(parent, child);
	return 0;
}

/*
 * A process moved into a workload's cgroup. Told for the leader only: its other threads find the leader's label,
 * once the new epoch makes them look again.
 */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_attach, struct cgroup *cgroup, const char *path, struct task_struct *task)
{
	struct who who = {};
	struct label *label;

	if (BPF_CORE_READ(cgroup, root, hierarchy_id) != 0)
		return 0; /* not the v2 hierarchy, whose ids mean something else */
	label = bpf_task_storage_get(&labels, task, 0, 0);
	if (label && label->labelled)
		return 0;
	if (find_by_cgroup(cgroup, &who)) {
		put_label(task, &who);
		__sync_fetch_and_add(&epoch, 1);
	}
	return 0;
}

#endif
