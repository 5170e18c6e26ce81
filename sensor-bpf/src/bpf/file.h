/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Files as the native tier sees them: at the exit of a system call. An opened file is judged by the kernel object behind
 * the descriptor that the call returned; names that were removed or changed exist only as the caller's text by then, so
 * they are told and nothing is decided on them.
 */
#ifndef CRESSET_FILE_H
#define CRESSET_FILE_H

#define CREAT_FLAGS 01101 /* O_CREAT | O_WRONLY | O_TRUNC */

/* The file behind a descriptor of the current task. */
static __always_inline struct file *file_of(int fd)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd);
	struct file *file = NULL;

	if (fd < 0 || (__u32)fd >= BPF_CORE_READ(table, max_fds))
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), files + fd);
	return file;
}

/* Pseudo file systems, which everything reads all the time; rules see them, telemetry does not. */
static __always_inline bool is_pseudo(struct file *file)
{
	unsigned long magic = BPF_CORE_READ(file, f_inode, i_sb, s_magic);

	return magic == PROC_SUPER_MAGIC || magic == SYSFS_MAGIC;
}

/* A nameless pipe, reopened by its descriptor: no rule can mean it. */
static __always_inline bool is_pipe(struct file *file)
{
	return BPF_CORE_READ(file, f_inode, i_sb, s_magic) == PIPEFS_MAGIC;
}

static __always_inline void fill_owner(struct record *record, struct file *file)
{
	record->owner = BPF_CORE_READ(file, f_inode, i_uid.val);
	record->flags |= HAS_OWNER;
}

/* Appends text of the caller, which another thread may change: for display. */
static __always_inline __u32 append_user(struct scratch *scratch, __u32 at, const char *string, __u32 text)
{
	__u32 from = at;
	bool cut = false;

	at = append_string(scratch, at, string, true, &cut);
	if (cut)
		scratch->record.truncated |= MARK_RESOURCE;
	scratch->record.display_only |= MARK_RESOURCE;
	if (text == TEXT_OBJECT)
		scratch->record.lengths[TEXT_OBJECT] = at - from;
	else if (text == TEXT_SECOND)
		scratch->record.lengths[TEXT_SECOND] = at - from;
	else
		scratch->record.lengths[TEXT_PARENT] = at - from;
	return at;
}

struct opening {
	const char *name;
	__u32 flags;
	__s32 directory;
	__u32 call;
};

static __noinline void opened(const struct who *who, const struct opening *opening, long result)
{
	struct decision decision = { .hook = HOOK_SYSCALL };
	struct scratch *scratch;
	struct file *file = result >= 0 ? file_of(result) : NULL;
	bool judged = native && file && !(opening->flags & O_PATH) && !is_pipe(file) &&
		      modes_of(head_of(who->set), CLASS_FILE);
	__u32 at = 0;

	if (!judged && (!(who->visible & VISIBLE_FILE) || (file && is_pseudo(file))))
		return;
	scratch = begin(who, KIND_OPEN, CLASS_FILE);
	if (!scratch) {
		if (judged && judge_blind(who, CLASS_FILE, &decision))
			kill_if(who, contain_files, &decision);
		lose(RING_TELEMETRY, CLASS_FILE);
		return;
	}
	if (judged) {
		if (judge_path(who, scratch, &file->f_path, CLASS_FILE, &decision, &at))
			kill_if(who, contain_files, &decision);
		else if (!(who->visible & VISIBLE_FILE) || is_pseudo(file))
			return;
	} else if (file) {
		tell_path(scratch, &file->f_path, &at);
	} else {
		at = append_user(scratch, at, opening->name, TEXT_OBJECT);
	}
	if (file)
		fill_owner(&scratch->record, file);
	fill_task(&scratch->record);
	scratch->record.result = result;
	scratch->record.fd = opening->directory;
	scratch->record.arg = opening->flags;
	scratch->record.call = opening->call;
	at = append_cwd(scratch, at);
	tell(scratch, &decision, at);
}

static __always_inline __u32 flags_of_openat2(const void *how)
{
	__u64 flags = 0;

	bpf_probe_read_user(&flags, sizeof(flags), how);
	return flags;
}

struct naming {
	const char *name;
	const char *to;		/* NULL: removed */
	__u32 flags;
	__s32 directory;
	__u32 call;
};

/* A name was removed, or changed. */
static __noinline void named_otherwise(const struct who *who, const struct naming *naming, long result)
{
	struct scratch *scratch;
	__u32 at;

	if (!(who->visible & VISIBLE_FILE))
		return;
	scratch = begin(who, naming->to ? KIND_RENAME : KIND_UNLINK, CLASS_FILE);
	if (!scratch) {
		lose(RING_TELEMETRY, CLASS_FILE);
		return;
	}
	at = append_user(scratch, 0, naming->name, TEXT_OBJECT);
	if (naming->to)
		at = append_user(scratch, at, naming->to, TEXT_SECOND);
	fill_task(&scratch->record);
	scratch->record.result = result;
	scratch->record.fd = naming->directory;
	scratch->record.arg = naming->flags;
	scratch->record.call = naming->call;
	at = append_cwd(scratch, at);
	submit(scratch, at, RING_TELEMETRY);
}

#endif
