/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * Capabilities that a policy names. Denied where hooks deny; on the native tier told after the kernel granted one (since
 * 6.14, which brought the tracepoint), by rules only: the kernel asks for capabilities all the time, and a posture that
 * denies nothing would tell of nothing else.
 */
#ifndef CRESSET_CAPABILITY_H
#define CRESSET_CAPABILITY_H

#define CAP_OPT_NOAUDIT 2 /* include/linux/security.h: asked for without consequence when refused */

static __always_inline void tell_capability(const struct who *who, __u32 number, const struct decision *decision)
{
	struct scratch *scratch = begin(who, KIND_CAPABILITY, CLASS_CAPABILITY);
	__u32 at;

	if (!scratch) {
		lose(RING_VERDICTS, CLASS_CAPABILITY);
		return;
	}
	fill_task(&scratch->record);
	scratch->record.result = decision->outcome == OUTCOME_DENIED ? -EPERM : 0;
	scratch->record.arg = number;
	at = append_cwd(scratch, 0);
	tell(scratch, decision, at);
}

SEC("tp_btf/cap_capable")
int BPF_PROG(on_capable, const struct cred *cred, struct user_namespace *target, const struct user_namespace *own,
	     int number, int result)
{
	struct decision decision = { .hook = HOOK_SYSCALL };
	struct who who = {};

	if (result || !whoami(&who))
		return 0;
	if (judge_number(&who, CLASS_CAPABILITY, number, &decision) && decision.by == BY_RULE)
		tell_capability(&who, number, &decision);
	return 0;
}

static __always_inline int check_capability(int number, unsigned int options)
{
	struct decision decision = { .hook = HOOK_CAPABLE };
	struct who who = {};

	if (!whoami(&who) || !judge_number(&who, CLASS_CAPABILITY, number, &decision))
		return 0;
	if (decision.action == ACTION_BLOCK && may_enforce(&who))
		decision.outcome = OUTCOME_DENIED;
	if (!(options & CAP_OPT_NOAUDIT))
		tell_capability(&who, number, &decision);
	return decision.outcome == OUTCOME_DENIED ? -EPERM : 0;
}

#endif
