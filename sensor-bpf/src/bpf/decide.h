/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * From a list of candidates to a decision. All precedence was computed when the list was written: the first Allow or
 * Block holds, the first Audit before it is told of when the operation passes, and where neither is found the posture
 * of a class in allow-list mode holds. Equal to policy::decide.
 */
#ifndef CRESSET_DECIDE_H
#define CRESSET_DECIDE_H

static __always_inline __u64 head_of(__u32 set)
{
	asm volatile("" : "+r"(set));
	if (set >= MAX_SETS)
		return 0;
	return *(volatile __u64 *)&heads[set];
}

static __always_inline __u32 modes_of(__u64 head, __u32 class)
{
	return (head >> (class * 4)) & 0xf;
}

struct scan {
	struct list_key key;
	__u32 audit_slot, audit;
	__u32 slot, action;
};

static long scan_step(__u32 index, void *context)
{
	struct scan *s = context;
	struct chunk *chunk;

	s->key.chunk = index;
	chunk = bpf_map_lookup_elem(&lists, &s->key);
	if (!chunk)
		return 1;
	for (int i = 0; i < CHUNK; i++) {
		__u32 action = chunk->candidates[i].action;
		__u32 slot = chunk->candidates[i].slot;

		if (action == ACTION_NONE)
			return 1;
		if (action == ACTION_AUDIT) {
			if (!s->audit) {
				s->audit = 1;
				s->audit_slot = slot;
			}
			continue;
		}
		s->action = action;
		s->slot = slot;
		return 1;
	}
	return 0;
}

static __always_inline void decide_rule(struct decision *decision, __u32 slot, __u32 action)
{
	decision->slot = slot;
	decision->action = action;
	decision->by = BY_RULE;
}

/* Judges by one list of a set. Returns true when the decision is to be told or enforced. */
static __noinline bool judge(__u64 head, __u32 set, __u32 class, __u32 list, struct decision *decision)
{
	struct scan s = {
		.key = { .set = set, .generation = head >> 32, .list = list },
	};
	__u32 modes = modes_of(head, class);

	decision->set = set;
	decision->generation = head >> 32;
	decision->by = BY_NOBODY;
	if (list)
		bpf_loop(MAX_CHUNKS, scan_step, &s, 0);
	if (s.action == ACTION_BLOCK) {
		decide_rule(decision, s.slot, ACTION_BLOCK);
	} else if (s.action == ACTION_NONE && (modes & MODE_ALLOW_LIST) && (modes & MODE_BLOCK)) {
		decision->action = ACTION_BLOCK;
		decision->by = BY_POSTURE;
	} else if (s.audit) {
		decide_rule(decision, s.audit_slot, ACTION_AUDIT);
	} else if (s.action == ACTION_NONE && (modes & MODE_ALLOW_LIST) && (modes & MODE_AUDIT)) {
		decision->action = ACTION_AUDIT;
		decision->by = BY_POSTURE;
	}
	return decision->by != BY_NOBODY;
}

/* Judges what has a number instead of a path: a socket, a capability, a system call. */
static __always_inline bool judge_number(const struct who *who, __u32 class, __u32 number,
					 struct decision *decision)
{
	__u64 head = head_of(who->set);
	struct named_key key = {
		.set = who->set,
		.generation = head >> 32,
		.class = class,
		.number = number,
	};
	__u32 *list;

	if (!modes_of(head, class))
		return false;
	list = bpf_map_lookup_elem(&named, &key);
	return judge(head, who->set, class, list ? *list : 0, decision);
}

/* Without memory to walk the path in, or where the path is none, only the posture can be applied. */
static __always_inline bool judge_blind(const struct who *who, __u32 class, struct decision *decision)
{
	__u64 head = head_of(who->set);

	return modes_of(head, class) && judge(head, who->set, class, 0, decision);
}

/*
 * Walks a path into the record as its object, for the set that judges the class, if one does. Returns that set's head,
 * or 0: there is nothing to judge by.
 */
static __always_inline __u64 walk_object(const struct who *who, struct scratch *scratch, struct vfsmount *mnt,
					 struct dentry *dentry, __u32 class, __u32 *at)
{
	__u64 head = head_of(who->set);

	if (!modes_of(head, class))
		head = 0;
	aim(scratch, head ? who->set : 0, head);
	*at = walk_path(scratch, mnt, dentry, *at);
	scratch->record.lengths[TEXT_OBJECT] = *at;
	if (scratch->walk.cut)
		scratch->record.truncated |= MARK_RESOURCE;
	if (scratch->walk.fault)
		scratch->record.flags |= HAS_FAULT;
	return head;
}

/* Walks a path into the record and judges it. Returns true when there is a decision. */
static __always_inline bool judge_path(const struct who *who, struct scratch *scratch, struct path *path,
				       __u32 class, struct decision *decision, __u32 *at)
{
	__u64 head = walk_object(who, scratch, BPF_CORE_READ(path, mnt), BPF_CORE_READ(path, dentry), class, at);

	return head && judge(head, who->set, class, list_here(&scratch->walk, class), decision);
}

/* Walks a path into the record as its object, without judging. */
static __always_inline void tell_path(struct scratch *scratch, struct path *path, __u32 *at)
{
	struct who nobody = {};

	walk_object(&nobody, scratch, BPF_CORE_READ(path, mnt), BPF_CORE_READ(path, dentry), CLASS_FILE, at);
}

#endif
