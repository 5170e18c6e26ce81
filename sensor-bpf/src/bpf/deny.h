/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Tiers 1 and 2: refuse before it happens. One body a hook; DENY() makes two programs of it:
 *
 *   lsm/HOOK                      BPF LSM
 *   fmod_ret/security_FUNCTION    the same arguments, where BPF is not among the security modules
 *
 * Both return an error to the caller of security_*(). An error of a module before us stands.
 */
#ifndef CRESSET_DENY_H
#define CRESSET_DENY_H

#define CANARY 0x7c5e
#define MAX_ARGS 128

#define DENY(hook, function, check, ...)                        \
	SEC("lsm/" #hook)                                       \
	int BPF_PROG(lsm_##hook, __VA_ARGS__, int ret)          \
	{                                                       \
		return ret ? ret : check;                       \
	}                                                       \
	SEC("fmod_ret/" #function)                              \
	int BPF_PROG(mod_##hook, __VA_ARGS__, int ret)          \
	{                                                       \
		return ret ? ret : check;                       \
	}

/* Is a decision one to refuse by? */
static __always_inline bool denied(const struct who *who, struct decision *decision)
{
	if (decision->action != ACTION_BLOCK || !may_enforce(who))
		return false;
	decision->outcome = OUTCOME_DENIED;
	return true;
}

/* exec: each level of a script, then its interpreter */

struct arguments_of {
	struct scratch *scratch;
	const char **list;
	__u32 at;
	bool cut;
};

static long append_argument(__u32 index, void *context)
{
	struct arguments_of *of = context;
	const char *argument = NULL;
	__u32 at = of->at;

	if (bpf_probe_read_user(&argument, sizeof(argument), of->list + index) || !argument)
		return 1;
	at = append_string(of->scratch, at, argument, true, &of->cut);
	asm volatile("" : "+r"(at));
	if (of->cut || at > TEXT_LIMIT)
		return 1;
	of->scratch->text[at] = 0;
	of->at = at + 1;
	return 0;
}

/* A refused image has no memory yet: its arguments are the caller's, for display. */
static __noinline __u32 append_callers_args(struct scratch *scratch, __u32 at)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	bool at_form = BPF_CORE_READ(regs, orig_ax) == NR_EXECVEAT;
	struct arguments_of of = { .scratch = scratch, .at = at };

	of.list = (void *)(at_form ? BPF_CORE_READ(regs, dx) : BPF_CORE_READ(regs, si));
	if (BPF_CORE_READ(regs, cs) == USER_CS_64)
		bpf_loop(MAX_ARGS, append_argument, &of, 0);
	if (of.cut)
		scratch->record.truncated |= MARK_ARGS;
	scratch->record.display_only |= MARK_ARGS;
	scratch->record.lengths[TEXT_ARGS] = of.at - at;
	return of.at;
}

static __always_inline void tell_denied_exec(struct scratch *scratch, struct linux_binprm *bprm,
					     const struct decision *decision, __u32 at)
{
	struct task_struct *task = bpf_get_current_task_btf();

	fill_task(&scratch->record);
	scratch->record.call = exec_call(task);
	scratch->record.result = decision->outcome == OUTCOME_DENIED ? -EACCES : 0;
	at = append_image(scratch, bprm, at);
	at = append_callers_args(scratch, at);
	tell(scratch, decision, at);
}

static __always_inline int check_exec(struct linux_binprm *bprm)
{
	struct decision decision = { .hook = HOOK_BPRM_CHECK };
	struct scratch *scratch;
	struct label *label;
	struct who who = {};
	struct file *file;
	__u32 at = 0;

	if (!whoami(&who))
		return 0;
	label = bpf_task_storage_get(&labels, bpf_get_current_task_btf(), 0, 0);
	if (label && BPF_CORE_READ(bprm, filename) == BPF_CORE_READ(bprm, interp))
		label->pending.by = BY_NOBODY; /* the first level: what an exec that failed left is not its */
	if (!modes_of(head_of(who.set), CLASS_PROCESS))
		return 0;
	scratch = begin(&who, KIND_EXEC, CLASS_PROCESS);
	if (!scratch) {
		lose(RING_VERDICTS, CLASS_PROCESS);
		return judge_blind(&who, CLASS_PROCESS, &decision) && denied(&who, &decision) ? -EACCES : 0;
	}
	file = BPF_CORE_READ(bprm, file);
	if (!judge_path(&who, scratch, &file->f_path, CLASS_PROCESS, &decision, &at))
		return 0;
	if (decision.action == ACTION_AUDIT && label) {
		if (label->pending.by == BY_NOBODY)
			label->pending = decision; /* told with the new image's own arguments */
		return 0;
	}
	denied(&who, &decision);
	tell_denied_exec(scratch, bprm, &decision, at);
	return decision.outcome == OUTCOME_DENIED ? -EACCES : 0;
}

DENY(bprm_check_security, security_bprm_check, check_exec(bprm), struct linux_binprm *bprm)

/*
 * A file mapped to be executed by hand (ld.so PROGRAM, dlopen): what a rule forbids to execute is not executed this way
 * either. The posture of an allow-list does not ask for libraries.
 */
static __always_inline int check_map(struct file *file, unsigned long protection)
{
	struct decision decision = { .hook = HOOK_MMAP_FILE };
	struct scratch *scratch;
	struct who who = {};
	__u32 at = 0;

	if (!file || !(protection & PROT_EXEC) || !whoami(&who))
		return 0;
	if (!(modes_of(head_of(who.set), CLASS_PROCESS) & MODE_RULES))
		return 0;
	scratch = begin(&who, KIND_EXEC, CLASS_PROCESS);
	if (!scratch)
		return 0;
	if (!judge_path(&who, scratch, &file->f_path, CLASS_PROCESS, &decision, &at))
		return 0;
	if (decision.by != BY_RULE || !denied(&who, &decision))
		return 0;
	fill_task(&scratch->record);
	scratch->record.result = -EACCES;
	at = append_cwd(scratch, at);
	tell(scratch, &decision, at);
	return -EACCES;
}

SEC("lsm/mmap_file")
int BPF_PROG(lsm_mmap_file, struct file *file, unsigned long asked, unsigned long protection, unsigned long flags,
	     int ret)
{
	return ret ? ret : check_map(file, protection);
}

SEC("fmod_ret/security_mmap_file")
int BPF_PROG(mod_mmap_file, struct file *file, unsigned long protection, unsigned long flags, int ret)
{
	return ret ? ret : check_map(file, protection);
}

/* files */

/*
 * The file behind a file of an overlay, which the overlay opens for itself: the first was judged. Up to 6.5 it has the
 * user's path and another inode than that path's; later it is on a private copy of the layer's mount.
 */
static __always_inline bool is_backing(struct file *file)
{
	struct vfsmount *vfs = BPF_CORE_READ(file, f_path.mnt);

	if (BPF_CORE_READ(file, f_inode) != BPF_CORE_READ(file, f_path.dentry, d_inode))
		return true;
	return is_no_namespace(mount_of(vfs)) && !(BPF_CORE_READ(file, f_inode, i_sb, s_flags) & SB_KERNMOUNT);
}

static __always_inline int check_open(struct file *file)
{
	struct decision decision = { .hook = HOOK_FILE_OPEN };
	struct scratch *scratch;
	struct who who = {};
	__u32 flags, at = 0;

	if (!whoami(&who) || !modes_of(head_of(who.set), CLASS_FILE))
		return 0;
	flags = BPF_CORE_READ(file, f_flags);
	if (flags & FMODE_EXEC || is_backing(file) || is_pipe(file))
		return 0; /* an exec is judged as one */
	scratch = begin(&who, KIND_OPEN, CLASS_FILE);
	if (!scratch) {
		lose(RING_VERDICTS, CLASS_FILE);
		return judge_blind(&who, CLASS_FILE, &decision) && denied(&who, &decision) ? -EACCES : 0;
	}
	if (!judge_path(&who, scratch, &file->f_path, CLASS_FILE, &decision, &at))
		return 0;
	denied(&who, &decision);
	fill_owner(&scratch->record, file);
	fill_task(&scratch->record);
	scratch->record.result = decision.outcome == OUTCOME_DENIED ? -EACCES : 0;
	scratch->record.fd = AT_FDCWD;
	scratch->record.arg = flags;
	at = append_cwd(scratch, at);
	tell(scratch, &decision, at);
	return decision.outcome == OUTCOME_DENIED ? -EACCES : 0;
}

DENY(file_open, security_file_open, check_open(file), struct file *file)

/* What happens to a name. */
struct change {
	struct vfsmount *mnt;
	struct dentry *dentry;
	struct dentry *other;	/* where it goes, on the same mount; NULL: nowhere */
	__u32 kind;
	__u32 hook;
	bool moves;		/* the object gets, or takes, another name */
};

/*
 * Judged as a file. What gets another name must, besides, not be forbidden to execute, nor have something forbidden
 * below it: the rule would no longer find it.
 */
static __always_inline bool judge_change(const struct who *who, struct scratch *scratch, const struct change *change,
					 struct decision *decision, __u32 *at)
{
	struct walk *walk = &scratch->walk;
	__u64 head = head_of(who->set);
	__u32 list;

	aim(scratch, who->set, head);
	*at = walk_path(scratch, change->mnt, change->dentry, *at);
	scratch->record.lengths[TEXT_OBJECT] = *at;
	if (walk->cut)
		scratch->record.truncated |= MARK_RESOURCE;
	if (walk->fault)
		scratch->record.flags |= HAS_FAULT;
	if (change->moves && !walk->fault) {
		list = list_here(walk, CLASS_PROCESS);
		if (list && judge(head, who->set, CLASS_PROCESS, list, decision) && decision->by == BY_RULE &&
		    decision->action == ACTION_BLOCK)
			return true;
		if (walk->place == PLACE_HERE && walk->edge.guarded) {
			decision->set = who->set;
			decision->generation = head >> 32;
			decide_rule(decision, walk->edge.guarded - 1, ACTION_BLOCK);
			return true;
		}
	}
	decision->by = BY_NOBODY;
	return modes_of(head, CLASS_FILE) && judge(head, who->set, CLASS_FILE, list_here(walk, CLASS_FILE), decision);
}

static __noinline int check_change(const struct change *change)
{
	struct decision decision = { .hook = change->hook };
	struct scratch *scratch;
	struct who who = {};
	__u64 head;
	__u32 at = 0, from;

	if (!whoami(&who))
		return 0;
	head = head_of(who.set);
	if (!modes_of(head, CLASS_FILE) && !(change->moves && modes_of(head, CLASS_PROCESS)))
		return 0;
	scratch = begin(&who, change->kind, CLASS_FILE);
	if (!scratch) {
		lose(RING_VERDICTS, CLASS_FILE);
		return judge_blind(&who, CLASS_FILE, &decision) && denied(&who, &decision) ? -EACCES : 0;
	}
	if (!judge_change(&who, scratch, change, &decision, &at))
		return 0;
	denied(&who, &decision);
	from = at;
	aim(scratch, 0, 0);
	if (change->other)
		at = walk_path(scratch, change->mnt, change->other, at);
	scratch->record.lengths[TEXT_SECOND] = at - from;
	fill_task(&scratch->record);
	scratch->record.result = decision.outcome == OUTCOME_DENIED ? -EACCES : 0;
	scratch->record.fd = AT_FDCWD;
	if (change->kind == KIND_OPEN)
		scratch->record.arg = O_TRUNC | O_WRONLY;
	at = append_cwd(scratch, at);
	tell(scratch, &decision, at);
	return decision.outcome == OUTCOME_DENIED ? -EACCES : 0;
}

static __always_inline int check_removal(const struct path *directory, struct dentry *dentry)
{
	struct change change = {
		.mnt = BPF_CORE_READ(directory, mnt),
		.dentry = dentry,
		.kind = KIND_UNLINK,
		.hook = HOOK_PATH_UNLINK,
	};

	return check_change(&change);
}

DENY(path_unlink, security_path_unlink, check_removal(directory, dentry), const struct path *directory,
     struct dentry *dentry)
DENY(path_rmdir, security_path_rmdir, check_removal(directory, dentry), const struct path *directory,
     struct dentry *dentry)

static __always_inline int check_truncation(const struct path *path)
{
	struct change change = {
		.mnt = BPF_CORE_READ(path, mnt),
		.dentry = BPF_CORE_READ(path, dentry),
		.kind = KIND_OPEN,
		.hook = HOOK_PATH_TRUNCATE,
	};

	return check_change(&change);
}

DENY(path_truncate, security_path_truncate, check_truncation(path), const struct path *path)

/* Both names are on one mount: the kernel refuses the rest before it asks. */
static __always_inline int check_move(const struct path *directory, struct dentry *from, struct dentry *to,
				      __u32 hook, bool both)
{
	struct change change = {
		.mnt = BPF_CORE_READ(directory, mnt),
		.dentry = from,
		.other = to,
		.kind = KIND_RENAME,
		.hook = hook,
		.moves = true,
	};
	int error = check_change(&change);

	if (error || !both)
		return error;
	change.dentry = to;
	change.other = from;
	return check_change(&change);
}

DENY(path_rename, security_path_rename, check_move(old_directory, old, new, HOOK_PATH_RENAME, true),
     const struct path *old_directory, struct dentry *old, const struct path *new_directory, struct dentry *new,
     unsigned int flags)
DENY(path_link, security_path_link, check_move(new_directory, old, new, HOOK_PATH_LINK, false), struct dentry *old,
     const struct path *new_directory, struct dentry *new)

/* sockets */

static __always_inline int check_socket(int family, int type, int protocol, int kernel)
{
	struct decision decision = { .hook = HOOK_SOCKET_CREATE };
	struct scratch *scratch;
	struct who who = {};
	bool refuse;

	if (kernel)
		return 0;
	if (protocol == CANARY && canary && (__u32)(bpf_get_current_pid_tgid() >> 32) == canary)
		return -EACCES;
	if (family != AF_INET && family != AF_INET6 && family != AF_PACKET)
		return 0;
	if (!whoami(&who))
		return 0;
	refuse = judge_socket(&who, family, type, protocol, &decision);
	if (decision.by == BY_NOBODY)
		return 0;
	scratch = begin(&who, KIND_SOCKET, CLASS_NETWORK);
	if (scratch) {
		fill_socket(&scratch->record, family, type, protocol, &decision);
		tell(scratch, &decision, append_cwd(scratch, 0));
	} else {
		lose(RING_VERDICTS, CLASS_NETWORK);
	}
	return refuse ? -EACCES : 0;
}

DENY(socket_create, security_socket_create, check_socket(family, type, protocol, kernel), int family, int type,
     int protocol, int kernel)

/* capabilities */

DENY(capable, security_capable, check_capability(number, options), const struct cred *cred,
     struct user_namespace *space, int number, unsigned int options)

#endif
