//! One daemon: connected to for as long as the relay runs.
//!
//! ```text
//! resolve, connect ─▶ HealthCheck ─▶ ┌ WatchMessages ┐
//!   ▲                                ├ WatchAlerts   ┼─▶ import     each begins again by itself
//!   │                                └ WatchLogs     ┘
//!   └── full-jitter pause ◀── the connection ended, or HealthCheck failed
//!                             (asked when a stream has ended, and every half minute)
//! ```

use std::time::Duration;

use proto::{Kind, feeder};
use tokio::sync::watch;
use tokio::time::timeout;

use super::account::Account;
use super::client::{CallError, Client, Windows};
use super::config::{Address, SourceTls};
use super::tls;
use super::watch::{Line, RETRY, Watch};
use crate::fanout::backoff;
use crate::feed::Nonces;
use crate::ingest::Importer;

/// For a connection, and for an answer to HealthCheck.
const GREETING: Duration = Duration::from_secs(10);

/// Between two HealthChecks of a connection that says nothing to worry about.
const CHECK: Duration = Duration::from_secs(30);

/// From the end of a stream until its connection is known to have ended as well, on a busy machine.
const MOMENT: Duration = Duration::from_millis(100);

/// What is needed to read one daemon.
pub(super) struct Daemon {
    pub(super) address: Address,
    pub(super) tls: Option<SourceTls>,
    pub(super) windows: Windows,
    pub(super) account: Account,
    pub(super) importer: Importer,
    pub(super) nonces: Nonces,
}

impl Daemon {
    /// Reads the daemon until the relay stops.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let (mut failures, mut told) = (0_u32, None);
        loop {
            let dialed = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                dialed = self.dial() => dialed,
            };
            let heard = self.account.heard();
            let ended = match dialed {
                Ok(client) => self.pull(&client, &stop).await,
                Err(why) => Some(why.to_string()),
            };
            self.account.disconnected(ended.as_deref());
            if ended.is_some() && (ended != told || failures == 0) {
                tracing::warn!(why = ended.as_deref(), "source away");
            }
            told = ended;
            let useful = self.account.heard() > heard;
            failures = if useful {
                1
            } else {
                failures.saturating_add(1)
            };
            Line::new(&stop)
                .pause(backoff::wait(RETRY, failures, None))
                .await;
        }
    }

    /// A connection whose far end answers.
    async fn dial(&self) -> Result<Client, CallError> {
        let tls = match self.tls.as_ref().filter(|_| self.address.tls) {
            None => None,
            Some(tls) => {
                let connector =
                    tls::connector(tls).map_err(|why| CallError::Certificates(why.to_string()))?;
                let name = tls::name(tls, &self.address).map_err(CallError::Certificates)?;
                Some((connector, name))
            }
        };
        let connected = timeout(GREETING, Client::connect(&self.address, tls, self.windows)).await;
        let client = connected.map_err(|_| CallError::Late(GREETING))??;
        self.check(&client).await?;
        Ok(client)
    }

    /// Is somebody there, and is it not ourselves? Who sends events need not answer in time.
    async fn check(&self, client: &Client) -> Result<(), CallError> {
        let (asked, heard) = (self.nonces.ask(), self.account.heard());
        let question = feeder::NonceMessage {
            nonce: asked.nonce(),
        };
        match timeout(
            GREETING,
            client.ask::<feeder::ReplyMessage>("HealthCheck", &question),
        )
        .await
        {
            Ok(Ok(_)) if asked.was_heard_here() => Err(CallError::Itself),
            Ok(Ok(reply)) if reply.retval == question.nonce => Ok(()),
            Ok(Ok(_)) => Err(CallError::Echo),
            Ok(Err(why)) => Err(why),
            Err(_) if self.account.heard() > heard => Ok(()),
            Err(_) => Err(CallError::Late(GREETING)),
        }
    }

    /// Reads all three kinds until the connection is of no use any more, and says why; none: the relay stops.
    async fn pull(&self, client: &Client, stop: &watch::Receiver<bool>) -> Option<String> {
        self.account.connected();
        tracing::info!("source connected");
        let line = Line::new(stop);
        let [messages, alerts, logs] = [Kind::Message, Kind::Alert, Kind::Log].map(|kind| Watch {
            kind,
            client,
            line: &line,
            account: &self.account,
            importer: &self.importer,
        });
        tokio::join!(
            self.guard(client, &line),
            self.keep(messages),
            self.keep(alerts),
            self.keep(logs)
        );
        line.broken.borrow().clone()
    }

    /// Finds out when the connection is of no use.
    async fn guard(&self, client: &Client, line: &Line) {
        loop {
            tokio::select! {
                () = line.over() => return,
                why = client.ended() => {
                    line.broken.send_replace(Some(why));
                }
                () = tokio::time::sleep(CHECK) => self.ask(client, line).await,
            }
        }
    }

    /// Asks whether somebody is there; if not, the line is broken.
    async fn ask(&self, client: &Client, line: &Line) {
        let checked = tokio::select! {
            checked = self.check(client) => checked,
            () = line.over() => return,
        };
        if let Err(why) = checked {
            line.broken.send_if_modified(|broken| {
                let first = broken.is_none();
                broken.get_or_insert_with(|| why.to_string());
                first
            });
        }
    }

    /// One kind, begun again whenever it ends while the others go on.
    async fn keep(&self, watch: Watch<'_>) {
        let mut failures = 0;
        while !watch.line.is_over() {
            let heard = self.account.heard_of(watch.kind);
            let Some(why) = watch.stream().await else {
                return;
            };
            // The end of the connection ends the streams a moment before it is known, and is one error, not two.
            watch.line.pause(MOMENT).await;
            if watch.line.is_over() {
                return;
            }
            self.account.closed(watch.kind, &why.to_string());
            tracing::warn!(kind = %watch.kind, %why, "a stream of the source ended");
            failures = if self.account.heard_of(watch.kind) > heard {
                1
            } else {
                failures + 1
            };
            watch.line.pause(backoff::wait(RETRY, failures, None)).await;
            self.ask(watch.client, watch.line).await;
        }
    }
}
