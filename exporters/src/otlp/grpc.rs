//! `LogsService/Export` over gRPC, with a request that is encoded already.
//!
//! The generated client takes a message and encodes it; this one hands on bytes, which cost nothing to send a second time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use reqwest::Url;
use tonic::client::Grpc as Client;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Config;
use super::answer::{self, Response};
use crate::Unavailable;
use crate::dial::Dial;
use crate::http::Credentials;
use crate::offer::Answer;

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

pub(super) struct Grpc {
    dial: Dial,
    url: Url,
    /// Made anew to come to another server.
    client: Mutex<Client<Channel>>,
    credentials: Credentials,
    headers: MetadataMap,
    timeout: Duration,
}

impl Grpc {
    pub(super) fn build(config: &Config, dial: &Dial, url: Url) -> Result<Self, String> {
        let mut headers = MetadataMap::new();
        for (name, value) in &config.headers {
            let name = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            let value = MetadataValue::try_from(value);
            headers.insert(
                name.map_err(|e| format!("headers: {e}"))?,
                value.map_err(|e| format!("headers: {e}"))?,
            );
        }
        Ok(Grpc {
            client: Mutex::new(Client::new(dial.clone().channel(&url)?)),
            dial: dial.clone(),
            url,
            credentials: Credentials::open(&config.auth)?,
            headers,
            timeout: config.options().timeout,
        })
    }

    /// Lets go of the connection: the next request makes one of its own.
    pub(super) fn elsewhere(&self) {
        match self.dial.clone().channel(&self.url) {
            Ok(channel) => *self.held() = Client::new(channel),
            Err(why) => tracing::warn!(why, "the connection stays the same"),
        }
    }

    fn held(&self) -> MutexGuard<'_, Client<Channel>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `count` records. Where the credentials are refused and their file holds others by now, it is done once more.
    pub(super) async fn export(&self, body: Bytes, count: usize) -> Result<Answer, Unavailable> {
        let mut answered = self.once(body.clone()).await;
        if let Err(status) = &answered
            && status.code() == Code::Unauthenticated
            && self.credentials.refused()
        {
            answered = self.once(body).await;
        }
        match answered {
            Ok(response) => Ok(answer::success(&response, count)),
            Err(status) => self.told(answer::status(&status)),
        }
    }

    /// What the collector said, without what it repeats of the credentials.
    fn told(&self, answered: Result<Answer, Unavailable>) -> Result<Answer, Unavailable> {
        match answered {
            Ok(Answer::Refused(why)) => Ok(Answer::Refused(self.credentials.hide(why))),
            Err(away) => Err(Unavailable {
                reason: self.credentials.hide(away.reason),
                ..away
            }),
            answered => answered,
        }
    }

    async fn once(&self, body: Bytes) -> Result<Response, Status> {
        let mut request = tonic::Request::new(body);
        *request.metadata_mut() = self.headers.clone();
        request.set_timeout(self.timeout);
        if let Some((name, text)) = self.credentials.carried() {
            let bad =
                || Status::unauthenticated(format!("the secret cannot stand in the header {name}"));
            let key = MetadataKey::from_bytes(name.as_str().as_bytes()).map_err(|_| bad())?;
            let mut value = MetadataValue::try_from(text).map_err(|_| bad())?;
            value.set_sensitive(true);
            request.metadata_mut().insert(key, value);
        }
        match tokio::time::timeout(self.timeout, self.call(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    async fn call(&self, request: tonic::Request<Bytes>) -> Result<Response, Status> {
        let mut client = self.held().clone();
        let ready = client.ready().await;
        ready.map_err(|error| Status::unknown(format!("not ready: {error}")))?;
        let path = PathAndQuery::from_static(EXPORT);
        let answered = client.unary(request, path, Raw).await?;
        Ok(answered.into_inner())
    }
}

/// A request as bytes, an answer as a message.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Response;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.len());
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Response;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Response>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let response = Response::decode(bytes);
        response
            .map(Some)
            .map_err(|error| Status::internal(format!("the answer cannot be read: {error}")))
    }
}
