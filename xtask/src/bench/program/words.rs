//! What the made-up nodes run, read, write and connect to.

/// What happens in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Exec,
    File,
    Network,
}

impl Doing {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Doing::Exec => "Process",
            Doing::File => "File",
            Doing::Network => "Network",
        }
    }

    /// As alerts name where it was decided.
    pub(crate) fn hook(self) -> &'static str {
        match self {
            Doing::Exec => "lsm=SECURITY_BPRM_CHECK",
            Doing::File => "lsm=FILE_OPEN",
            Doing::Network => "lsm=SOCKET_CONNECT",
        }
    }
}

/// A kind of workload. Templates as in [`super::events`]: `%d` a number, `%x` hexadecimal digits, `%i` an address.
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) tier: &'static str,
    pub(crate) cwd: &'static str,
    pub(crate) does: &'static [Doing],
    pub(crate) programs: &'static [Program],
    pub(crate) children: &'static [&'static str],
    pub(crate) files: &'static [&'static str],
    pub(crate) peers: &'static [&'static str],
}

/// A program and the command lines that it is run with.
pub(crate) struct Program {
    pub(crate) path: &'static str,
    pub(crate) parent: &'static str,
    pub(crate) runs: &'static [&'static [&'static str]],
}

/// What an alert says of its rule.
pub(crate) struct Policy {
    pub(crate) name: &'static str,
    pub(crate) severity: &'static str,
    pub(crate) tags: &'static [&'static str],
    pub(crate) message: &'static str,
    pub(crate) rule: u64,
}

pub(crate) const CLUSTER: &str = "prod-eu";

pub(crate) static ZONES: &[&str] = &[
    "eu-west-1a.example",
    "eu-west-1b.example",
    "eu-west-1c.example",
];

pub(crate) static NAMESPACES: &[&str] =
    &["shop", "payments", "search", "data", "build", "monitoring"];

pub(crate) static OPEN_FLAGS: &[&str] = &[
    "O_RDONLY",
    "O_RDONLY|O_CLOEXEC",
    "O_RDWR|O_CREAT|O_CLOEXEC",
    "O_WRONLY|O_CREAT|O_TRUNC",
    "O_WRONLY|O_CREAT|O_APPEND",
];

pub(crate) static POLICIES: &[Policy] = &[
    Policy {
        name: "no-shell-in-web",
        severity: "7",
        tags: &["MITRE", "T1059"],
        message: "a shell was started where none belongs",
        rule: 0x51a3_0c77_9be2_4401,
    },
    Policy {
        name: "protect-service-account-token",
        severity: "9",
        tags: &["MITRE", "T1552", "PCI-DSS"],
        message: "somebody reads the token",
        rule: 0x0be5_77aa_1290_ff03,
    },
    Policy {
        name: "egress-only-to-known-peers",
        severity: "5",
        tags: &["NIST", "SC-7"],
        message: "connection to an unknown peer",
        rule: 0x9c1d_4423_6a0e_0012,
    },
    Policy {
        name: "etc-is-read-only",
        severity: "6",
        tags: &["CIS", "MITRE"],
        message: "write below /etc",
        rule: 0x3377_f00d_02b1_7e55,
    },
];

use Doing::{Exec, File, Network};

pub(crate) static PROFILES: &[Profile] = &[
    Profile {
        name: "storefront",
        tier: "web",
        cwd: "/usr/share/nginx",
        does: &[File, File, File, File, Network, Network],
        programs: &[Program {
            path: "/usr/sbin/nginx",
            parent: "/usr/bin/dumb-init",
            runs: &[
                &["nginx:", "worker", "process"],
                &[
                    "/usr/sbin/nginx",
                    "-g",
                    "daemon off;",
                    "-c",
                    "/etc/nginx/conf.d/%x.conf",
                ],
            ],
        }],
        children: &["/bin/sh -c /docker-entrypoint.d/%d-envsubst.sh"],
        files: &[
            "/usr/share/nginx/html/assets/app.%x.js",
            "/var/cache/nginx/client_temp/%d",
            "/var/log/nginx/access-%d.log",
            "/etc/nginx/conf.d/%x.conf",
        ],
        peers: &[
            "remoteip=%i port=8080 protocol=TCP",
            "remoteip=%i port=443 protocol=TCP",
        ],
    },
    Profile {
        name: "checkout",
        tier: "api",
        cwd: "/srv/app",
        does: &[File, File, Network, Network, Exec],
        programs: &[
            Program {
                path: "/usr/bin/node",
                parent: "/usr/bin/tini",
                runs: &[
                    &[
                        "node",
                        "--max-old-space-size=512",
                        "/srv/app/dist/server.js",
                        "--shard=%d",
                    ],
                    &[
                        "node",
                        "/srv/app/dist/worker.js",
                        "--queue=orders-%d",
                        "--trace=%x",
                    ],
                ],
            },
            Program {
                path: "/usr/bin/npm",
                parent: "/bin/sh",
                runs: &[&["npm", "run", "migrate", "--", "--to=%d"]],
            },
        ],
        children: &[
            "/usr/bin/node /srv/app/dist/report.js --order=%d --trace=%x",
            "/usr/bin/openssl dgst -sha256 /tmp/invoice-%x.pdf",
        ],
        files: &[
            "/srv/app/node_modules/.cache/%x/index.json",
            "/tmp/upload_%x.part",
            "/srv/app/config/production-%d.json",
            "/proc/%d/status",
        ],
        peers: &[
            "remoteip=%i port=5432 protocol=TCP",
            "remoteip=%i port=6379 protocol=TCP",
        ],
    },
    Profile {
        name: "orders-db",
        tier: "database",
        cwd: "/var/lib/postgresql/data",
        does: &[File, File, File, File, File, Network],
        programs: &[Program {
            path: "/usr/lib/postgresql/16/bin/postgres",
            parent: "/usr/lib/postgresql/16/bin/postgres",
            runs: &[
                &["postgres:", "orders", "shop", "%i(%d)", "SELECT"],
                &["postgres:", "autovacuum", "worker", "shop_%d"],
                &["postgres:", "walwriter"],
            ],
        }],
        children: &["/usr/bin/pg_dump --file=/backup/%x.dump --jobs=%d"],
        files: &[
            "/var/lib/postgresql/data/base/%d/%d",
            "/var/lib/postgresql/data/pg_wal/0000000100000000%x",
            "/var/lib/postgresql/data/pg_stat_tmp/db_%d.stat",
        ],
        peers: &["remoteip=%i port=%d protocol=TCP"],
    },
    Profile {
        name: "recommender",
        tier: "batch",
        cwd: "/opt/model",
        does: &[File, File, Exec, Exec, Network],
        programs: &[Program {
            path: "/usr/local/bin/python3.12",
            parent: "/usr/local/bin/gunicorn",
            runs: &[
                &[
                    "python3",
                    "-m",
                    "recommender.train",
                    "--epoch",
                    "%d",
                    "--run",
                    "%x",
                ],
                &["python3", "/opt/model/serve.py", "--bind", "%i:8000"],
            ],
        }],
        children: &[
            "/usr/local/bin/python3.12 -c from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=%d)",
            "/usr/bin/nvidia-smi --query-gpu=memory.used --id=%d",
        ],
        files: &[
            "/opt/model/checkpoints/%x/weights-%d.bin",
            "/usr/local/lib/python3.12/site-packages/numpy/core/__pycache__/%x.cpython-312.pyc",
            "/dev/shm/torch_%d_%x",
        ],
        peers: &["remoteip=%i port=9000 protocol=TCP"],
    },
    Profile {
        name: "search-index",
        tier: "search",
        cwd: "/usr/share/opensearch",
        does: &[File, File, File, Network],
        programs: &[Program {
            path: "/usr/share/opensearch/jdk/bin/java",
            parent: "/usr/share/opensearch/bin/opensearch",
            runs: &[&[
                "/usr/share/opensearch/jdk/bin/java",
                "-Xms1g",
                "-Xmx1g",
                "-Dopensearch.networkaddress.cache.ttl=%d",
                "-cp",
                "/usr/share/opensearch/lib/*",
            ]],
        }],
        children: &["/usr/bin/sync -f /usr/share/opensearch/data/nodes/0/indices/%x"],
        files: &[
            "/usr/share/opensearch/data/nodes/0/indices/%x/0/index/_%x.cfs",
            "/usr/share/opensearch/data/nodes/0/indices/%x/0/translog/translog-%d.tlog",
        ],
        peers: &["remoteip=%i port=9300 protocol=TCP"],
    },
    Profile {
        name: "ci-runner",
        tier: "build",
        cwd: "/builds/shop/checkout",
        does: &[Exec, Exec, Exec, File, File, Network],
        programs: &[
            Program {
                path: "/bin/bash",
                parent: "/usr/bin/gitlab-runner",
                runs: &[&["bash", "-eo", "pipefail", "/builds/tmp/step_script_%d_%x"]],
            },
            Program {
                path: "/usr/bin/make",
                parent: "/bin/bash",
                runs: &[&["make", "-j%d", "test", "BUILD=%x"]],
            },
        ],
        children: &[
            "/usr/bin/gcc -O2 -c -o build/%x.o src/module_%d.c",
            "/usr/bin/git fetch --depth=1 origin refs/pull/%d/head",
            "/usr/bin/curl -sSfL https://mirror.example/pool/%x.tar.gz",
            "/usr/bin/sha256sum build/%x.o",
        ],
        files: &[
            "/builds/shop/checkout/src/module_%d.c",
            "/builds/shop/checkout/build/%x.o",
            "/root/.cache/ccache/%x/%x.result",
        ],
        peers: &[
            "remoteip=%i port=22 protocol=TCP",
            "remoteip=%i port=443 protocol=TCP",
        ],
    },
];
