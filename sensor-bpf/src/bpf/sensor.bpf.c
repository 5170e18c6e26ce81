// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
/*
 * The kernel half of the sensor, in one object. Read in the order of the includes.
 *
 *   hook ─▶ whoami ─▶ walk + judge ─▶ carry out ─▶ record ─▶ ring
 *            │ no label: out after one lookup; with host visibility, told as the host's and not judged
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>
#include "event.h"
#include "maps.h"
#include "label.h"
#include "path.h"
#include "decide.h"
#include "emit.h"
#include "exec.h"
#include "file.h"
#include "socket.h"
#include "capability.h"
#include "syscall.h"
#include "deny.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Names the enumerations for the BTF, from which Rust takes them. */
const volatile struct {
	enum kind kind;
	enum by by;
	enum action action;
	enum outcome outcome;
	enum hook hook;
	enum call call;
	enum text text;
	enum mark mark;
	enum class class;
	enum place place;
	enum mode mode;
	enum visible visible;
} enumerations = {};
