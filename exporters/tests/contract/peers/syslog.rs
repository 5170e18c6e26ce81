//! A receiver of syslog over TCP that reads frames by their length and undoes every escape.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use super::{Memory, Mood, Peer};
use crate::fake_http;

macro_rules! format {
    ($name:ident, $word:literal, $pod:expr) => {
        pub(crate) struct $name {
            memory: Memory,
            task: JoinHandle<()>,
        }

        impl Peer for $name {
            const BULK: usize = 64 << 10;
            const STEPS: &[&str] = &["resolve", "connect", "write"];

            async fn start(at: SocketAddr) -> Self {
                let memory = Memory::new(at);
                let task = serve(at, memory.clone(), $pod).await;
                $name { memory, task }
            }

            fn settings(at: &str) -> String {
                std::format!("{{type: syslog, address: '{at}', format: {}}}", $word)
            }

            fn memory(&self) -> &Memory {
                &self.memory
            }

            /// Syslog has no answers.
            fn feels(&self, mood: Mood) -> bool {
                self.memory.feels(mood);
                !matches!(mood, Mood::Busy | Mood::Refusing(_))
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.task.abort();
            }
        }
    };
}

format!(Json, "json", |message: &str| {
    let event: serde_json::Value = serde_json::from_str(message).expect("JSON");
    event["PodName"].as_str().expect("a pod").to_owned()
});

format!(Cef, "cef", |message: &str| {
    assert!(message.starts_with("CEF:0|Cresset|Cresset|"));
    let label = " cs3Label=pod cs3=";
    let value = &message[message.find(label).expect("a pod") + label.len()..];
    // A value ends where the next key begins: a space, a word and an `=` without a backslash.
    let end = value.find(" cs6Label=").expect("the key after it");
    unescaped(&value[..end])
});

format!(Leef, "leef", |message: &str| {
    let attributes = message.split('|').nth(6).expect("attributes");
    // A pipe in a value is no end of the header.
    let attributes = &message[message.find(attributes).unwrap()..];
    let pod = attributes
        .split('\t')
        .find_map(|pair| pair.strip_prefix("pod="));
    unescaped(pod.expect("a pod"))
});

fn unescaped(text: &str) -> String {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        let escape = match c {
            '\\' => chars.next().expect("no lonely backslash"),
            c => {
                assert!(!c.is_control(), "{c:?} stands bare in {text:.60}");
                out.push(c);
                continue;
            }
        };
        out.push(match escape {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'x' => {
                let hex: String = chars.by_ref().take(2).collect();
                char::from(u8::from_str_radix(&hex, 16).expect("two hex digits"))
            }
            c => c,
        });
    }
    out
}

async fn serve(at: SocketAddr, memory: Memory, pod: fn(&str) -> String) -> JoinHandle<()> {
    let listener = fake_http::listen(at).await;
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(read(stream, memory.clone(), pod));
        }
    })
}

async fn read(stream: TcpStream, memory: Memory, pod: fn(&str) -> String) {
    let mut stream = BufReader::new(stream);
    if memory.mood() == Mood::Breaking {
        // It has read a part when it ends, and the kernel tells the sender so because there was more.
        let _ = stream.read_u8().await;
        return;
    }
    loop {
        let mut length = Vec::new();
        if stream.read_until(b' ', &mut length).await.unwrap_or(0) == 0 {
            return;
        }
        let length: usize = std::str::from_utf8(&length)
            .unwrap()
            .trim_end()
            .parse()
            .expect("a length");
        let mut frame = vec![0; length];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        let frame = String::from_utf8(frame).expect("UTF-8");
        let (header, message) = frame.split_once("\"] ").expect("structured data");
        assert!(header.starts_with("<107>1 2026-01-01T00:00:"), "{header}");
        let id = header
            .split("id=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        memory.keep([(id.expect("an id").to_owned(), pod(message))]);
    }
}
