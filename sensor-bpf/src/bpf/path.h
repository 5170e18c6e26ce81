/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * A path, from the leaf up to the root of its mount namespace (so chroot does not change it), then down again:
 *
 *   collect   leaf ─▶ parent ─▶ … across mounts ─▶ root      the last DEPTH dentries are kept: those nearest the root
 *   descend   root ─▶ … ─▶ leaf                              text, hash and automaton, component by component
 *
 * The automaton has no rule deeper than DEPTH, so what lies below the kept components matters only by its number.
 * The state of a walk is in the scratch: a stack of 512 bytes is shared by all functions of a call chain.
 */
#ifndef CRESSET_PATH_H
#define CRESSET_PATH_H

#define MAX_STEPS 2048
#define NAME_MAX 255
#define PATH_LIMIT 4096

static long collect_step(__u32 index, void *context)
{
	struct walk *walk = &(*(struct scratch **)context)->walk;
	struct dentry *dentry = (void *)walk->dentry, *parent;
	struct mount *mount = (void *)walk->mount, *above;

	if (walk->dentry == walk->mount_root) {
		above = BPF_CORE_READ(mount, mnt_parent);
		if (above == mount) {
			walk->done = 1;
			return 1;
		}
		walk->dentry = (__u64)BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount_root = (__u64)BPF_CORE_READ(above, mnt.mnt_root);
		walk->mount = (__u64)above;
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (!parent || parent == dentry)
		return 1; /* outside the root of its mount */
	walk->names[walk->count % DEPTH] = (__u64)dentry;
	walk->count++;
	walk->dentry = (__u64)parent;
	return 0;
}

/* A component as it is read: its length is known apart. */
struct name {
	char bytes[NAME_MAX + 1];
};

/* Equal to Secret::mix in rules.rs: a secret start and a secret odd factor. */
static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * hash_factor;
	return hash ^ (hash >> 29);
}

/*
 * Equal to Secret::hash in rules.rs. Not static, so it is verified once, for any name, and not again for each place
 * that calls it: the verifier would otherwise follow each of the 32 lengths of each component of each path.
 */
__noinline __u64 hash_name(const struct name *name, __u32 length)
{
	__u64 hash = mix(hash_seed, length);

	if (!name)
		return 0; /* the verifier asks; callers have one */
	for (__u32 at = 0; at < NAME_MAX + 1; at += 8) {
		__u64 word;

		if (at >= length)
			break;
		word = *(const __u64 *)(name->bytes + at);
		if (length - at < 8)
			word &= (1ULL << ((length - at) * 8)) - 1;
		hash = mix(hash, word);
	}
	return mix(hash, hash >> 32);
}

static __always_inline bool follow(struct walk *walk, __u32 from, __u64 hash)
{
	struct edge_key key = {
		.set = walk->set,
		.generation = walk->generation,
		.hash = hash,
		.state = from,
	};
	struct edge *edge = bpf_map_lookup_elem(&edges, &key);

	if (!edge)
		return false;
	walk->edge = *edge;
	return true;
}

static long descend_step(__u32 index, void *context)
{
	struct scratch *scratch = *(struct scratch **)context;
	struct walk *walk = &scratch->walk;
	__u32 length, at = walk->at;
	struct dentry *dentry;
	struct qstr name = {};
	char *text;

	dentry = (struct dentry *)walk->names[(walk->count - 1 - index) % DEPTH];
	bpf_core_read(&name, sizeof(name), &dentry->d_name);
	length = name.len;
	asm volatile("" : "+r"(length));
	if (length > NAME_MAX)
		length = NAME_MAX;
	asm volatile("" : "+r"(at));
	if (at > TEXT_LIMIT)
		at = TEXT_LIMIT; /* read to be matched, not to be kept */
	text = scratch->text + at;
	text[0] = '/';
	if (bpf_probe_read_kernel(text + 1, length, name.name)) {
		walk->fault = 1;
		return 1;
	}
	if (at + 1 + length <= walk->limit)
		walk->at = at + 1 + length;
	else
		walk->cut = 1;
	if (!walk->set || walk->stuck)
		return 0;
	if (!follow(walk, walk->edge.next, hash_name((struct name *)(text + 1), length))) {
		/* this component and those after it have no edge */
		walk->stuck = 1;
		walk->place = index + 1 == walk->count ? PLACE_CHILD : PLACE_BELOW;
	}
	return 0;
}

static __always_inline struct mount *mount_of(struct vfsmount *vfs)
{
	return (void *)vfs - bpf_core_field_offset(struct mount, mnt);
}

/* Is a pointer to a mount namespace none (a detached mount) or an error (a mount of the kernel's own)? */
static __always_inline bool is_no_namespace(struct mount *mount)
{
	__u64 namespace = (__u64)BPF_CORE_READ(mount, mnt_ns);

	return !namespace || namespace >= -4095ULL;
}

/* The next walk is for a set that judges; without this it only tells. */
static __always_inline void aim(struct scratch *scratch, __u32 set, __u64 head)
{
	scratch->walk.set = set;
	scratch->walk.generation = head >> 32;
}

/*
 * Writes the path's text at `at` and returns where it ends. What was matched, and whether the text is cut, is in
 * scratch->walk afterwards.
 */
static __noinline __u32 walk_path(struct scratch *scratch, struct vfsmount *vfs, struct dentry *leaf, __u32 at)
{
	struct walk *walk = &scratch->walk;
	__u32 count, kept;

	walk->dentry = (__u64)leaf;
	walk->mount = (__u64)mount_of(vfs);
	walk->mount_root = (__u64)BPF_CORE_READ(vfs, mnt_root);
	walk->count = 0;
	walk->done = 0;
	walk->at = at;
	walk->limit = at + PATH_LIMIT < TEXT_LIMIT ? at + PATH_LIMIT : TEXT_LIMIT;
	walk->cut = 0;
	walk->stuck = 0;
	walk->fault = 0;

	bpf_loop(MAX_STEPS, collect_step, &scratch, 0);
	count = walk->count;
	kept = count < DEPTH ? count : DEPTH;
	if (!walk->done || is_no_namespace((struct mount *)walk->mount))
		walk->fault = 1; /* too deep, unreachable, or in no mount namespace (a memfd) */
	if (walk->set && !follow(walk, ROOT_STATE, 0))
		walk->fault = 1;
	bpf_loop(kept, descend_step, &scratch, 0);
	if (!walk->stuck)
		walk->place = count == kept ? PLACE_HERE : count == kept + 1 ? PLACE_CHILD : PLACE_BELOW;
	if (count > kept || !walk->done)
		walk->cut = 1;
	if (count)
		return walk->at;
	asm volatile("" : "+r"(at));
	if (at > TEXT_LIMIT)
		return at;
	scratch->text[at] = '/';
	return at + 1;
}

/* The list that holds for a class where a walk ended. */
static __always_inline __u32 list_here(const struct walk *walk, __u32 class)
{
	__u32 place = walk->place;

	if (walk->fault || place >= PLACES)
		return 0;
	return class == CLASS_PROCESS ? walk->edge.lists[0][place] : walk->edge.lists[1][place];
}

#endif
