//! A real Elasticsearch or OpenSearch for tests, and its own door: REST.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // reason: a test that cannot go on has failed

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::servers::{Failed, Server, free_ports, has_java, skip};

/// Which product.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Product {
    Elasticsearch,
    OpenSearch,
}

impl Product {
    fn script(self) -> &'static str {
        match self {
            Product::Elasticsearch => "elasticsearch",
            Product::OpenSearch => "opensearch",
        }
    }
}

/// One server, with data of its own.
pub struct Elasticsearch {
    server: Option<Server>,
    product: Product,
    settings: Vec<String>,
    port: u16,
    folder: TempDir,
}

impl Elasticsearch {
    /// Starts one for this test, or says why it cannot be had. `settings` are lines of elasticsearch.yml as `key=value`.
    pub fn start(suite: &str, product: Product, settings: &[&str]) -> Option<Self> {
        if !has_java(suite) {
            return None;
        }
        for _ in 0..3 {
            let mut server = Elasticsearch {
                server: None,
                product,
                settings: settings.iter().map(|&line| line.to_owned()).collect(),
                port: free_ports(1),
                folder: tempfile::tempdir().unwrap(),
            };
            match server.run() {
                Ok(()) => return Some(server),
                Err(Failed::NoDownload) => {
                    skip("network", suite, "the server's jars cannot be downloaded");
                    return None;
                }
                // Somebody else took the port, or that for nodes, meanwhile.
                Err(Failed::Ended(words))
                    if words.contains("in use") || words.contains("BindTransport") => {}
                Err(Failed::Ended(words)) => panic!("the server ended: {words}"),
            }
        }
        panic!("no port stayed free long enough for a server");
    }

    /// One server for all tests of a program that run at the same time: each uses indices of its own.
    pub fn shared(suite: &str) -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Elasticsearch>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Self::start(suite, Product::Elasticsearch, &[])?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    fn run(&mut self) -> Result<(), Failed> {
        let port = self.port.to_string();
        let arguments =
            std::iter::once(port.as_str()).chain(self.settings.iter().map(String::as_str));
        let data = self.folder.path().join("data");
        let server = Server::start(
            self.product.script(),
            &data,
            arguments,
            &[("ES_HEAP", "384m")],
        )?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops it in order; its data stay.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Ends it where it stands; its data stay.
    pub fn kill(&mut self) {
        if let Some(server) = &mut self.server {
            server.kill();
        }
        self.server = None;
    }

    /// Starts it again on the same port with the same data.
    pub fn restart(&mut self) {
        if let Err(Failed::Ended(words)) = self.run() {
            panic!("the server did not start again: {words}");
        }
    }

    /// For clients.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// One request; status and body.
    pub async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().unwrap();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.request(method, format!("{}/{path}", self.url()));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    /// The same, which has to go well.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    pub async fn put(&self, path: &str, body: Value) {
        let (status, told) = self.ask("PUT", path, Some(body)).await;
        assert!(status < 300, "PUT {path}: {told}");
    }

    /// How many documents match, after all that was written is searchable.
    pub async fn count(&self, indices: &str, query: Value) -> u64 {
        self.refresh(indices).await;
        let body = json!({ "query": query });
        let (status, told) = self
            .ask("POST", &format!("{indices}/_count"), Some(body))
            .await;
        assert_eq!(status, 200, "{told}");
        told["count"].as_u64().unwrap()
    }

    /// Every document's id and how often it is there, over all indices of the name.
    pub async fn ids(&self, indices: &str) -> BTreeMap<String, u32> {
        self.refresh(indices).await;
        let mut ids = BTreeMap::new();
        let all = json!({ "size": 5000, "_source": false, "sort": ["_doc"] });
        let path = format!("{indices}/_search?scroll=2m");
        let (_, mut page) = self.ask("POST", &path, Some(all)).await;
        loop {
            let hits = page["hits"]["hits"]
                .as_array()
                .unwrap_or_else(|| panic!("{page}"));
            if hits.is_empty() {
                return ids;
            }
            for hit in hits {
                *ids.entry(hit["_id"].as_str().unwrap().to_owned())
                    .or_default() += 1;
            }
            let next = json!({ "scroll": "2m", "scroll_id": page["_scroll_id"] });
            page = self.ask("POST", "_search/scroll", Some(next)).await.1;
        }
    }

    async fn refresh(&self, indices: &str) {
        let (status, told) = self.ask("POST", &format!("{indices}/_refresh"), None).await;
        assert_eq!(status, 200, "{told}");
    }
}
