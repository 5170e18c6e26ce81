//! What each field is called, holds and means, whichever message it stands in.
//!
//! The third name is OpenTelemetry's semantic conventions (1.x) where they have the thing, else Elastic Common Schema 8,
//! else a name under `kubearmor.` or `cresset.`.

use super::{Field, FieldType, IndexType};

macro_rules! columns {
    ($($const:ident $name:literal $ty:expr, $index:ident, $otel:literal, $meaning:literal;)*) => {$(
        pub(super) const $const: Field = Field {
            number: 0,
            name: $name,
            otel: $otel,
            index: IndexType::$index,
            ty: $ty,
            keep_zero: false,
            ours: false,
            meaning: $meaning,
            key: concat!(",\"", $name, "\":"),
        };
    )*};
}

use FieldType::{
    Bytes, Int32, Int64, Message, Name64, OptionalUint32, Text, TextList, TextMap, Uint32, Uint64,
};

columns! {
    TIMESTAMP "Timestamp" Int64, DateSeconds, "kubearmor.timestamp",
        "When the event was built, in unix seconds.";
    UPDATED_TIME "UpdatedTime" Text, Date, "@timestamp",
        "When the event was built: UTC, RFC 3339 with six fraction digits.";
    CLUSTER_NAME "ClusterName" Text, Keyword, "k8s.cluster.name",
        "The cluster, as configured at the sensor; `default` if it was not.";
    HOST_NAME "HostName" Text, Keyword, "host.name",
        "The node's name.";
    HOST_IP "HostIP" Text, Keyword, "host.ip",
        "The node's address.";
    NAMESPACE_NAME "NamespaceName" Text, Keyword, "k8s.namespace.name",
        "Namespace of the pod; empty for events of the host.";
    OWNER "Owner" Message(&super::OWNER_TABLE), Object, "kubearmor.owner",
        "The top-most controller of the pod.";
    POD_NAME "PodName" Text, Keyword, "k8s.pod.name",
        "The pod; empty for events of the host.";
    LABELS "Labels" Text, KeywordText, "kubearmor.labels",
        "Labels of the pod: `k=v`, joined by commas.";
    CONTAINER_ID "ContainerID" Text, Keyword, "container.id",
        "The runtime's id of the container.";
    CONTAINER_NAME "ContainerName" Text, Keyword, "k8s.container.name",
        "The container's name in the pod's specification or at the runtime.";
    CONTAINER_IMAGE "ContainerImage" Text, KeywordText, "container.image.name",
        "The container's image with its digest: `image@sha256:…`.";
    HOST_PPID "HostPPID" Int32, Integer, "kubearmor.host_ppid",
        "The parent's process id in the host's pid namespace.";
    HOST_PID "HostPID" Int32, Integer, "kubearmor.host_pid",
        "The process id in the host's pid namespace.";
    PPID "PPID" Int32, Integer, "process.parent_pid",
        "The parent's process id in the container's pid namespace.";
    PID "PID" Int32, Integer, "process.pid",
        "The process id in the container's pid namespace.";
    UID "UID" Int32, Integer, "user.id",
        "The user id of the process.";
    USER_NAME "UserName" Text, Keyword, "user.name",
        "The user's name; events of the host only.";
    PARENT_PROCESS_NAME "ParentProcessName" Text, KeywordText, "process.parent.executable",
        "Path of the parent's executable.";
    PROCESS_NAME "ProcessName" Text, KeywordText, "process.executable.path",
        "Path of the executable.";
    POLICY_NAME "PolicyName" Text, Keyword, "security_rule.ruleset.name",
        "The policy that decided, or `DefaultPosture`.";
    SEVERITY "Severity" Text, KeywordNumber, "event.severity",
        "The policy's severity, 1 to 10, in decimal text; absent when 0.";
    TAGS "Tags" Text, KeywordText, "kubearmor.tags",
        "The policy's tags, joined by commas.";
    ATAGS "ATags" TextList, Keyword, "tags",
        "The policy's tags, one by one.";
    MESSAGE_TEXT "Message" Text, Text, "message",
        "The policy's message, or what a sensor or relay says of itself.";
    TYPE "Type" Text, Keyword, "kubearmor.type",
        "MatchedPolicy, MatchedHostPolicy, MatchedNetworkPolicy, SystemEvent (alerts); ContainerLog, HostLog (logs); Message.";
    SOURCE "Source" Text, KeywordText, "process.command_line",
        "Who acted: the command line or executable; for Process, the parent's.";
    OPERATION "Operation" Text, Keyword, "kubearmor.operation",
        "Process, File, Network, Capabilities, Syscall, Device, NetworkFirewall or AlertThreshold.";
    RESOURCE "Resource" Text, KeywordText, "kubearmor.resource",
        "What was acted upon: command line, path, address or capability.";
    DATA "Data" Text, KeywordText, "kubearmor.data",
        "How it was seen: `key=value` words, such as `lsm=FILE_OPEN` or `syscall=SYS_OPENAT fd=-100`.";
    EVENT_DATA "EventData" TextMap, Flattened, "kubearmor.event_data",
        "The words of Data (and of Resource, for Network) as a map, first letters in upper case.";
    ENFORCER "Enforcer" Text, Keyword, "kubearmor.enforcer",
        "What decided: BPFLSM, BPFContain, AppArmor, SELinux, `eBPF Monitor`, or a preset.";
    ACTION "Action" Text, Keyword, "kubearmor.action",
        "What the policy asked for: Block, Audit, Allow or `Audit (Block)`.";
    RESULT "Result" Text, Keyword, "kubearmor.result",
        "`Passed`, `Killed`, or the text of the error that the process got.";
    CWD "Cwd" Text, KeywordText, "process.working_directory",
        "Working directory of the process.";
    TTY "TTY" Text, Keyword, "kubearmor.tty",
        "The terminal, such as `pts0`; empty without one.";
    MAX_ALERTS_PER_SEC "MaxAlertsPerSec" Int32, Integer, "kubearmor.throttle.max_alerts_per_second",
        "In a throttling notice: how many alerts a second pass.";
    DROPPING_ALERTS_INTERVAL "DroppingAlertsInterval" Int32, Integer, "kubearmor.throttle.seconds",
        "In a throttling notice: for how many seconds alerts are dropped.";
    EXEC_EVENT "ExecEvent" Message(&super::EXEC_EVENT_TABLE), Object, "kubearmor.exec_event",
        "The `kubectl exec` session that the process belongs to.";
    KUBEARMOR_VERSION "KubeArmorVersion" Text, Keyword, "kubearmor.version",
        "Version of the sensor.";
    NODE_ID "NodeID" Text, Keyword, "host.id",
        "The node's machine id.";
    PROCESS_HASH "ProcessHash" Text, Keyword, "process.hash.sha256",
        "Hash of the executable, where the kernel measures it.";
    PARENT_HASH "ParentHash" Text, Keyword, "process.parent.hash.sha256",
        "Hash of the parent's executable, where the kernel measures it.";
    RESOURCE_HASH "ResourceHash" Text, Keyword, "file.hash.sha256",
        "Reserved for a hash of the resource.";
    HASH_ALGO "HashAlgo" Text, Keyword, "kubearmor.hash_algorithm",
        "`sha256` where there are hashes.";
    LEVEL "Level" Text, Keyword, "log.level",
        "DEBUG, INFO, WARN or ERROR.";

    OWNER_REF "Ref" Text, Keyword, "kubearmor.owner.kind",
        "Its kind: Deployment, StatefulSet, DaemonSet, CronJob, ….";
    OWNER_NAME "Name" Text, Keyword, "kubearmor.owner.name",
        "Its name.";
    OWNER_NAMESPACE "Namespace" Text, Keyword, "kubearmor.owner.namespace",
        "Its namespace.";
    EXEC_EVENT_ID "ExecID" Text, Keyword, "kubearmor.exec_event.id",
        "Number of the session in decimal text; `0` for none.";
    EXEC_EVENT_NAME "ExecutableName" Text, Keyword, "kubearmor.exec_event.executable",
        "Command name of the process (15 bytes at most, as the kernel keeps it).";

    EVENT_ID "EventID" Bytes, Keyword, "log.record.uid",
        "The event's id: 8 bytes of stream, 8 of sequence; the same however often and by whichever way it arrives.";
    ARGS "Args" TextList, KeywordText, "process.command_args",
        "The argument list of the program that was started.";
    ACCESS_MASK "AccessMask" Uint32, Long, "cresset.access_mask",
        "What was asked for, as bits: 1 exec, 2 write, 4 read, 8 append, 16 create, 32 unlink, 64 rename.";
    OWNER_UID "OwnerUID" OptionalUint32, Long, "file.owner.id",
        "User id of the owner of the resource; absent when it is not known.";
    SOURCE_IMAGE "SourceImage" Text, KeywordText, "cresset.source_image",
        "Path of the image that acted.";
    TRUNCATED "Truncated" Uint32, Long, "cresset.truncated",
        "What is cut short, as bits: 1 Resource, 2 Args, 4 Cwd, 8 ProcessName, 16 ParentProcessName, 32 Source.";
    DISPLAY_ONLY "DisplayOnly" Uint32, Long, "cresset.display_only",
        "What came from the process's own memory and decided nothing, in the bits of Truncated.";
    EXEC_ID "ExecID" Name64, Keyword, "cresset.exec_id",
        "The running image that acted; unique for one boot of a node.";
    PARENT_EXEC_ID "ParentExecID" Name64, Keyword, "cresset.parent_exec_id",
        "The running image that started it.";
    RULE_ID "RuleID" Name64, Keyword, "security_rule.uuid",
        "The rule that decided.";
    TIER "Tier" Uint32, Long, "cresset.tier",
        "How the sensor enforces: 1 BPF LSM, 2 fmod_ret, 3 contain.";
    POLICY_DIGEST "PolicyDigest" Bytes, Keyword, "cresset.policy_digest",
        "SHA-256 of the rule set in force.";
    LOST "Lost" Message(&super::LOST_TABLE), Object, "cresset.lost",
        "A counted loss.";

    AUDIT "Audit" Message(&super::AUDIT_TABLE), Object, "cresset.audit",
        "What somebody did to the pipeline itself.";

    AUDIT_ACTOR "Actor" Text, Keyword, "cresset.audit.actor",
        "Who did it: user and process behind the administrator's socket.";
    AUDIT_ACTION "Action" Text, Keyword, "cresset.audit.action",
        "What was done: pause, resume, rewind, skip, test, retry or drop dead letters.";
    AUDIT_TARGET "Target" Text, Keyword, "cresset.audit.target",
        "What it was done to, such as `sink siem`.";
    AUDIT_DETAIL "Detail" Text, Text, "cresset.audit.detail",
        "How far and how many, in words.";

    LOST_WHERE "Where" Text, Keyword, "cresset.lost.where",
        "Where events were lost: ring, spool, rejected, journal or feed.";
    LOST_CLASS "Class" Text, Keyword, "cresset.lost.class",
        "What was lost: verdict, telemetry, or the name of a sink.";
    LOST_COUNT "Count" Uint64, UnsignedLong, "cresset.lost.count",
        "How many events.";
    LOST_STREAM "Stream" Bytes, Keyword, "cresset.lost.stream",
        "The stream they belonged to; absent where they had none.";
    LOST_FIRST "First" Uint64, UnsignedLong, "cresset.lost.first",
        "Sequence of the first lost event; 0 if they were never numbered.";
    LOST_LAST "Last" Uint64, UnsignedLong, "cresset.lost.last",
        "Sequence of the last lost event.";
    LOST_REASON "Reason" Text, Text, "cresset.lost.reason",
        "Why, in words.";
}
