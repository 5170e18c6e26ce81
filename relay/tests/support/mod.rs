//! The vocabulary of the whole relay's tests: a relay on ports of its own, sensors, and plain HTTP.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

pub mod authority;
pub mod books;
pub mod disk;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::books::Page;
use self::disk::Moody;
use bytes::Bytes;
use prost::Message as _;
use proto::link::from_relay::Is as Reply;
use proto::link::from_sensor::Is as Say;
use proto::link::link_client::LinkClient;
use proto::{Kind, StreamId, batch, feeder, link};
use relay::log::Store;
use relay::{Addresses, App, Config, RunError, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// What every test gives up after.
pub const SOON: Duration = Duration::from_secs(60);

/// The stream that sensors send unless told otherwise.
pub const STREAM: StreamId = StreamId([1; 8]);

/// Settings with ports that the kernel chooses, data under `folder`, and `more` of the file.
pub fn settings(folder: &Path, more: &str) -> Config {
    let data = folder.join("data");
    let text = format!(
        "cluster: test\nrelay:\n  data_dir: {data}\n  listen: {{feed: \"127.0.0.1:0\", link: \"127.0.0.1:0\", http: \"127.0.0.1:0\", admin: \"unix:{folder}/admin.sock\"}}\npolicies: {{sources: []}}\n{more}",
        data = data.display(),
        folder = folder.display(),
    );
    match Settings::parse("test.yaml", &text, []) {
        Ok(settings) => settings.config,
        Err(problems) => panic!("{problems:#?}\n{text}"),
    }
}

/// A relay that runs until it is stopped.
pub struct Relay {
    pub at: Addresses,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Relay {
    pub async fn start(folder: &Path) -> Relay {
        Relay::with(settings(folder, "")).await
    }

    pub async fn with(config: Config) -> Relay {
        Relay::run(App::build(config).await.expect("a relay"))
    }

    /// Over a disk that does what the test says. The log is for looking into what was stored.
    pub async fn over(config: Config, disk: &Moody, journal: journal::Config) -> (Relay, Store) {
        let (log, _) = Store::open_on(Arc::new(disk.clone()), journal).expect("a journal");
        let app = App::build_over(config, log.clone()).await.expect("a relay");
        (Relay::run(app), log)
    }

    pub fn run(app: App) -> Relay {
        let at = app.addresses().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(app.run(async {
            let _ = stopped.await;
        }));
        Relay { at, stop, task }
    }

    /// Looks whether the accounts add up, tells it to stop and waits until it has.
    pub async fn stop(self) {
        self.page().await.check().expect("the accounts add up");
        let _ = self.stop.send(());
        timeout(2 * SOON, self.task)
            .await
            .expect("drained in time")
            .expect("no panic")
            .expect("no error");
    }

    /// A sensor that said Hello with its one stream, and the relay's first answer.
    pub async fn sensor(&self, id: &str) -> (Sensor, Result<link::FromRelay, Status>) {
        let mut sensor = self.connect().await;
        sensor.say(Say::Hello(hello(id))).await;
        let first = sensor.hear().await;
        (sensor, first)
    }

    /// A sensor that was welcomed, and the Welcome.
    pub async fn welcomed(&self, id: &str) -> (Sensor, link::Welcome) {
        let (sensor, first) = self.sensor(id).await;
        match first.expect("an answer").is {
            Some(Reply::Welcome(welcome)) => (sensor, welcome),
            other => panic!("a Welcome was expected, not {other:?}"),
        }
    }

    /// A connection that has said nothing.
    pub async fn connect(&self) -> Sensor {
        let mut client = LinkClient::new(channel(self.at.link).await);
        let (say, said) = mpsc::channel(100);
        let heard = client
            .exchange(ReceiverStream::new(said))
            .await
            .expect("a stream")
            .into_inner();
        Sensor {
            say,
            heard,
            skipped: Vec::new(),
        }
    }

    /// One page of the HTTP listener: its status line and headers, and its body.
    pub async fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.at.http).await.expect("connected");
        let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut text = String::new();
        timeout(SOON, stream.read_to_string(&mut text))
            .await
            .expect("answered in time")
            .expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    /// All figures of this moment.
    pub async fn page(&self) -> Page {
        Page::read(&self.get("/metrics").await.1)
    }

    /// The value of one line of /metrics, by its name and labels as they stand there; NaN if there is none.
    pub async fn metric(&self, line: &str) -> f64 {
        let (_, body) = self.get("/metrics").await;
        let value = body
            .lines()
            .find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        value.map_or(f64::NAN, |value| value.parse().expect("a number"))
    }

    /// Waits until a metric has a value.
    pub async fn metric_is(&self, line: &str, wanted: f64) {
        self.metric_becomes(line, |value| value == wanted).await;
    }

    /// Waits until a metric has a value that fits.
    pub async fn metric_becomes(&self, line: &str, fits: impl Fn(f64) -> bool) {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let value = self.metric(line).await;
            if fits(value) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{line} is {value}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub async fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect()
        .await
        .expect("connected")
}

pub fn hello(id: &str) -> link::Hello {
    let spooled = link::SpooledStream {
        stream: STREAM.0.to_vec().into(),
        ..Default::default()
    };
    link::Hello {
        version: 1,
        sensor: id.to_owned(),
        node: "node-a".to_owned(),
        streams: vec![spooled],
        ..Default::default()
    }
}

/// One side of the link, in the test's hand.
pub struct Sensor {
    pub say: mpsc::Sender<link::FromSensor>,
    pub heard: Streaming<link::FromRelay>,
    /// Rules that came between.
    pub skipped: Vec<link::Rules>,
}

impl Sensor {
    pub async fn say(&self, what: Say) {
        self.say
            .send(link::FromSensor { is: Some(what) })
            .await
            .expect("the session lives");
    }

    pub async fn events(&self, first: u64, events: Vec<Bytes>) {
        self.say(Say::Batch(link::Batch {
            stream: STREAM.0.to_vec().into(),
            first,
            events,
        }))
        .await;
    }

    /// Alerts of these namespaces, one each.
    pub async fn alerts_of(&self, first: u64, namespaces: &[&str]) {
        let alert = |namespace: &&str| {
            let alert = feeder::Alert {
                namespace_name: (*namespace).to_owned(),
                pod_name: format!("{namespace}-pod"),
                ..Default::default()
            };
            batch::join(Kind::Alert, &alert.encode_to_vec())
        };
        self.events(first, namespaces.iter().map(alert).collect())
            .await;
    }

    /// Alerts with these sequences.
    pub async fn batch(&self, first: u64, count: u64) {
        self.events(first, (first..first + count).map(alert).collect())
            .await;
    }

    /// The next answer but for rules.
    pub async fn hear(&mut self) -> Result<link::FromRelay, Status> {
        loop {
            let heard = timeout(SOON, self.heard.message())
                .await
                .expect("an answer in time")?;
            match heard.ok_or_else(|| Status::ok("the stream ended"))?.is {
                Some(Reply::Rules(rules)) => self.skipped.push(rules),
                is => return Ok(link::FromRelay { is }),
            }
        }
    }

    pub async fn ack(&mut self) -> link::Ack {
        match self.hear().await.expect("an answer").is {
            Some(Reply::Ack(ack)) => ack,
            other => panic!("an Ack was expected, not {other:?}"),
        }
    }

    /// The status that the relay ends the session with.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.hear().await {
                return status;
            }
        }
    }
}

/// An alert of a pod of this number, as it stands in a batch.
pub fn alert(number: u64) -> Bytes {
    let alert = feeder::Alert {
        timestamp: 1_767_225_600,
        namespace_name: "shop".to_owned(),
        pod_name: format!("pod-{number}"),
        policy_name: "deny".to_owned(),
        severity: "5".to_owned(),
        action: "Block".to_owned(),
        ..Default::default()
    };
    batch::join(Kind::Alert, &alert.encode_to_vec())
}
