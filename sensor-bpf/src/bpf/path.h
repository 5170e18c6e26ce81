/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * A path, from the leaf up to the root of its mount namespace (so chroot does not change it), then down again:
 *
 *   collect   leaf ─▶ parent ─▶ … across mounts ─▶ root      the last DEPTH dentries are kept: those nearest the root
 *   descend   root ─▶ … ─▶ leaf                              text, hash and automaton, component by component
 *
 * The automaton has no rule deeper than DEPTH, so what lies below the kept components matters only by its number.
 */
#ifndef CRESSET_PATH_H
#define CRESSET_PATH_H

#define MAX_STEPS 2048
#define NAME_MAX 255
#define PATH_LIMIT 4096

/* What matching a path against a set's automaton yields: where it left the automaton, and what is said there. */
struct matching {
	__u32 set;		/* 0: the path is only told */
	__u32 generation;
	__u32 fault;		/* the path could not be judged */
	__u32 place;
	struct edge edge;	/* that led to the last state */
};

struct collect {
	struct scratch *scratch;
	struct dentry *dentry;
	struct dentry *mount_root;
	struct mount *mount;
	__u32 count;
	__u32 done;
};

static long collect_step(__u32 index, void *context)
{
	struct collect *c = context;
	struct dentry *dentry = c->dentry, *parent;
	struct mount *mount = c->mount, *above;

	if (dentry == c->mount_root) {
		above = BPF_CORE_READ(mount, mnt_parent);
		if (above == mount) {
			c->done = 1;
			return 1;
		}
		c->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		c->mount_root = BPF_CORE_READ(above, mnt.mnt_root);
		c->mount = above;
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (!parent || parent == dentry)
		return 1; /* outside the root of its mount */
	c->scratch->names[c->count % DEPTH] = (__u64)dentry;
	c->count++;
	c->dentry = parent;
	return 0;
}

/* A component as it is read: its length is known apart. */
struct name {
	char bytes[NAME_MAX + 1];
};

/* Equal to hash() in rules.rs. A secret start and a secret odd factor; the words after the name are cut off. */
static __always_inline __u64 mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * hash_factor;
	return hash ^ (hash >> 29);
}

/*
 * Not static, so it is verified once, for any name, and not again for each place that calls it. Kernels that see
 * through it would otherwise follow each of the 32 lengths of each component of each path.
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

struct descend {
	struct scratch *scratch;
	struct matching *match;
	__u32 count;		/* components in all */
	__u32 at;		/* where the next text goes */
	__u32 limit;		/* where this path's text must end */
	__u32 cut;
	__u32 stuck;		/* the automaton had no edge */
};

static __always_inline bool follow(struct descend *d, __u32 from, __u64 hash)
{
	struct edge_key key = {
		.set = d->match->set,
		.generation = d->match->generation,
		.hash = hash,
		.state = from,
	};
	struct edge *edge = bpf_map_lookup_elem(&edges, &key);

	if (!edge)
		return false;
	d->match->edge = *edge;
	return true;
}

static __always_inline __u32 list_of(const struct edge *edge, __u32 class, __u32 place)
{
	/* spelled out: no variable index into the stack */
	if (class == CLASS_PROCESS)
		return place == PLACE_HERE ? edge->lists[0][PLACE_HERE] :
		       place == PLACE_CHILD ? edge->lists[0][PLACE_CHILD] :
					      edge->lists[0][PLACE_BELOW];
	return place == PLACE_HERE ? edge->lists[1][PLACE_HERE] :
	       place == PLACE_CHILD ? edge->lists[1][PLACE_CHILD] :
				      edge->lists[1][PLACE_BELOW];
}

static long descend_step(__u32 index, void *context)
{
	struct descend *d = context;
	struct dentry *dentry;
	struct qstr name;
	__u32 length, at = d->at;
	char *text;
	__u64 hash;

	if (index >= d->count)
		return 1;
	dentry = (struct dentry *)d->scratch->names[(d->count - 1 - index) % DEPTH];
	if (bpf_core_read(&name, sizeof(name), &dentry->d_name)) {
		d->match->fault = 1;
		return 1;
	}
	length = BPF_CORE_READ(dentry, d_name.len);
	if (length > NAME_MAX)
		length = NAME_MAX;
	asm volatile("" : "+r"(at));
	if (at > TEXT_LIMIT)
		at = TEXT_LIMIT; /* read to be matched, not to be kept */
	text = d->scratch->text + at;
	text[0] = '/';
	if (bpf_probe_read_kernel(text + 1, length, name.name)) {
		d->match->fault = 1;
		return 1;
	}
	if (at + 1 + length <= d->limit)
		d->at = at + 1 + length;
	else
		d->cut = 1;
	if (!d->match->set || d->stuck)
		return 0;
	hash = hash_name((struct name *)(text + 1), length);
	if (!follow(d, d->match->edge.next, hash)) {
		d->stuck = 1;
		/* this component and those after it have no edge */
		d->match->place = index + 1 == d->count ? PLACE_CHILD : PLACE_BELOW;
	}
	return 0;
}

/*
 * Writes the path's text at *at (and moves *at behind it), at most `limit` bytes, and matches it if match->set says so.
 * Returns true when the text is cut.
 */
static __noinline bool walk(struct scratch *scratch, struct vfsmount *vfs, struct dentry *dentry,
			    struct matching *match, __u32 *at)
{
	struct mount *mount = (void *)vfs - bpf_core_field_offset(struct mount, mnt);
	struct collect c = {
		.scratch = scratch,
		.dentry = dentry,
		.mount_root = BPF_CORE_READ(vfs, mnt_root),
		.mount = mount,
	};
	struct descend d = {
		.scratch = scratch,
		.match = match,
		.at = *at,
	};
	__u64 namespace;
	__u32 kept;

	d.limit = *at + PATH_LIMIT < TEXT_LIMIT ? *at + PATH_LIMIT : TEXT_LIMIT;
	bpf_loop(MAX_STEPS, collect_step, &c, 0);
	mount = c.mount;
	namespace = (__u64)BPF_CORE_READ(mount, mnt_ns);
	if (!c.done || !namespace || namespace >= -4095ULL)
		match->fault = 1; /* too deep, unreachable, or in no mount namespace (memfd, a detached mount) */
	if (match->set && !follow(&d, ROOT_STATE, 0))
		match->fault = 1;
	d.count = c.count;
	kept = c.count < DEPTH ? c.count : DEPTH;
	bpf_loop(kept, descend_step, &d, 0);
	if (!d.stuck)
		match->place = c.count == kept ? PLACE_HERE :
			       c.count == kept + 1 ? PLACE_CHILD : PLACE_BELOW;
	if (c.count == 0 && d.at < TEXT_LIMIT) {
		__u32 end = d.at;

		asm volatile("" : "+r"(end));
		if (end < TEXT_LIMIT)
			scratch->text[end] = '/';
		d.at++;
	}
	*at = d.at;
	return d.cut || c.count > kept || !c.done;
}

#endif
