/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Maps, keys and values: the one definition. Rust gets these types from the object's BTF.
 *
 *   task ─labels▶ workload ─workloads▶ set ─heads▶ generation + modes
 *                                                     │
 *   path    ─▶ edges  {set, generation, state, hash of a component} ─▶ next state, six lists
 *   number  ─▶ named  {set, generation, class, number}              ─▶ list
 *   list    ─▶ lists  {set, generation, list, chunk}                ─▶ candidates in rank order
 *
 * Which set a workload has, and which generation a set has, are single words in memory that user space writes too:
 * rules change whole or not at all. What a generation holds is never changed, only added before and removed after.
 */
#ifndef CRESSET_MAPS_H
#define CRESSET_MAPS_H

#define MAX_WORKLOADS 4096
#define HOST 0xffffffffu	/* no workload: a task of the host, in records that only tell */
#define MAX_SETS 4096
#define CHUNK 8			/* candidates in one entry of lists */
#define MAX_CHUNKS 64
#define DEPTH 64		/* components kept of a path: those nearest the root */
#define TEXT_LIMIT 5056		/* no text starts beyond */
#define TEXT_GUARD 2048		/* most bytes written by one read */
#define ROOT_STATE 0xffffffffu	/* the edge from here, with hash 0, leads to "/" */

enum class {
	CLASS_PROCESS = 0,
	CLASS_FILE = 1,
	CLASS_NETWORK = 2,
	CLASS_CAPABILITY = 3,
	CLASS_SYSCALL = 4,
	CLASSES = 5,
};

/* Lists of an edge: class (process, file) × place. */
enum place {
	PLACE_HERE = 0,
	PLACE_CHILD = 1,
	PLACE_BELOW = 2,
	PLACES = 3,
};

/* Bits of a class's four in a head. */
enum mode {
	MODE_RULES = 1,		/* there are rules of this class */
	MODE_ALLOW_LIST = 2,	/* what no rule names meets the posture */
	MODE_BLOCK = 4,		/* the posture is Block */
	MODE_AUDIT = 8,		/* the posture is Audit; with neither, Allow */
};

/* Bits of workload.visible, and of host_visible. */
enum visible {
	VISIBLE_PROCESS = 1,
	VISIBLE_FILE = 2,
	VISIBLE_NETWORK = 4,
	VISIBLE_CAPABILITY = 8,
};

struct workload {
	__u64 cgroup;		/* id of its own cgroup in the v2 hierarchy; 0: no workload */
	__u64 deadline;		/* CLOCK_BOOTTIME ns after which nothing is enforced any more; 0: none */
	__u32 set;
	__u32 visible;
};

/*
 * One per thread. Set when the task enters the workload's cgroup, inherited by fork, never taken away. Of a task that is
 * in no workload it keeps that this was found out, and with host visibility the image that runs.
 */
struct label {
	__u64 cgroup;		/* of the workload when it was set: an index that is used again is another workload */
	__u64 exec_id;
	__u64 parent_exec_id;
	__u32 workload;
	__u32 epoch;		/* of a task that is in no workload: when this was found out */
	__u32 labelled;
	__u32 exited;		/* of a leader: the end of its process was told */
	struct decision pending;	/* an Audit that was decided for an exec in progress */
};

/* The label of a process's leader, for programs that cannot read task storage (those of cgroups, before 6.18). */
struct image {
	__u64 cgroup;
	__u64 exec_id;
	__u64 parent_exec_id;
	__u32 workload;
	__u32 zero;
};

struct edge_key {
	__u32 set;
	__u32 generation;
	__u64 hash;
	__u32 state;
	__u32 zero;
};

struct edge {
	__u32 next;
	__u32 lists[2][PLACES];	/* 0: empty */
	__u32 guarded;		/* 1 + slot of a Block below: this name may not be moved away; 0: none */
};

struct named_key {
	__u32 set;
	__u32 generation;
	__u32 class;
	__u32 number;		/* sockets: type << 8 | protocol */
};

struct list_key {
	__u32 set;
	__u32 generation;
	__u32 list;
	__u32 chunk;
};

struct candidate {
	__u32 slot;
	__u32 action;		/* ACTION_NONE ends the list */
};

struct chunk {
	struct candidate candidates[CHUNK];
};

/* A walk along a path: see path.h. */
struct walk {
	__u64 dentry, mount, mount_root;	/* where it is */
	__u32 count;		/* components in all */
	__u32 done;		/* the root was reached */
	__u32 at;		/* where the next text goes */
	__u32 limit;		/* where this path's text must end */
	__u32 cut;		/* the text is not whole */
	__u32 set;		/* whose automaton; 0: the path is only told */
	__u32 generation;
	__u32 fault;		/* the path could not be judged */
	__u32 stuck;		/* the automaton had no edge */
	__u32 place;		/* where it left the automaton */
	struct edge edge;	/* that led to the last state */
	__u64 names[DEPTH];	/* dentries */
};

/* Where a hook works. Nothing here is shared with another task, so a preempted hook finds its own again. */
struct scratch {
	struct walk walk;
	struct record record;
	char text[TEXT_LIMIT + TEXT_GUARD];
};

/* Chosen by user space before loading. */
const volatile __u64 hash_seed = 0;
const volatile __u64 hash_factor = 1;
const volatile __u32 native = 1;	/* tier 3: decide at tracepoints */
const volatile __u32 contain = 0;	/* native: end forbidden images, refuse forbidden sockets */
const volatile __u32 contain_files = 0;	/* native: end processes that opened forbidden files */

/* Words that both sides write. */
struct workload workloads[MAX_WORKLOADS];
__u64 heads[MAX_SETS];			/* generation << 32 | four bits of mode for each class; 0: no rules */
__u32 epoch = 1;			/* goes up when a workload is added, or a process enters one */
__u64 next_exec_id = 0;
__u64 lost[2][CLASSES];			/* records without room: ring (verdicts, telemetry) × class */
__u64 unlabelled = 0;			/* tasks whose label found no memory */
__u32 host_visible = 0;			/* which operations of tasks that are in no workload are told; 0: none */
__u32 own_tgid = 0;			/* the sensor, of which nothing is told: an event would make the next one */
__u32 canary = 0;			/* a process that is refused one impossible socket, to see a hook work */

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct label);
} labels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* Process id → label. Full: a socket's record does not name the image. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u32);
	__type(value, struct image);
} images SEC(".maps");

/* Id of a workload's cgroup → its index. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_WORKLOADS);
	__type(key, __u64);
	__type(value, __u32);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct edge_key);
	__type(value, struct edge);
} edges SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct named_key);
	__type(value, __u32);
} named SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, struct list_key);
	__type(value, struct chunk);
} lists SEC(".maps");

/* Decisions, and the life of workloads' processes: what may not be lost to a flood of the rest. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
} telemetry SEC(".maps");

#endif
