//! Where messages go. The address of a chat service is a secret: whoever has it may write there. So it stands in a file, and
//! what the destination repeats of it (`Cannot POST /services/…`) is told to nobody.

use reqwest::Url;

use crate::Unavailable;
use crate::http::{self, endpoint};
use crate::secret::Secret;

pub(super) const ADVICE: &str = "holds a secret, which would be shown wherever the settings are; write the address alone into a file and name it in url_file";

/// Services whose whole address is the secret.
const SECRET_HOSTS: [&str; 6] = [
    "hooks.slack.com",
    "discord.com",
    "discordapp.com",
    "webhook.office.com",
    "outlook.office.com",
    "hooks.zapier.com",
];
/// Parameters that say who somebody is.
const SECRET_PARAMETERS: [&str; 8] = [
    "token",
    "access_token",
    "key",
    "api_key",
    "apikey",
    "secret",
    "password",
    "sig",
];

pub(super) enum Address {
    Plain(Url),
    Secret(Secret),
}

impl Address {
    pub(super) fn url(&self) -> Result<Url, Unavailable> {
        match self {
            Address::Plain(url) => Ok(url.clone()),
            Address::Secret(secret) => {
                let place = secret.source();
                // Why it is none would show it.
                endpoint(secret.current().expose()).map_err(|_| {
                    Unavailable::new(format!("{place} holds no http or https address"))
                })
            }
        }
    }

    /// Takes out what an answer repeats of a secret address.
    pub(super) fn hide(&self, answer: &mut http::Answer) {
        let (Address::Secret(_), Ok(url)) = (self, self.url()) else {
            return;
        };
        answer.hide(url.as_str());
        // `/` alone is no secret.
        if url.path().len() > 1 {
            answer.hide(url.path());
        }
        answer.hide(url.query().unwrap_or_default());
    }
}

/// Whether an address looks like one that should not be seen.
pub(super) fn is_secret(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let within = |known: &&str| {
        host.strip_suffix(*known)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let named = |name: &str| {
        SECRET_PARAMETERS
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    };
    SECRET_HOSTS.iter().any(within) || url.query_pairs().any(|(name, _)| named(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_secrets_are_known_by_their_hosts_and_parameters() {
        let secret = |text: &str| is_secret(&Url::parse(text).unwrap());
        for text in [
            "https://hooks.slack.com/services/T/B/x",
            "https://acme.webhook.office.com/webhookb2/x",
            "https://discord.com/api/webhooks/1/x",
            "https://chat.googleapis.com/v1/spaces/A/messages?threadKey=a&KEY=x",
        ] {
            assert!(secret(text), "{text}");
        }
        for text in [
            "https://events.pagerduty.com/v2/enqueue",
            "http://alertmanager:9093/api/v2/alerts?team=a",
            "https://notdiscord.com/x",
        ] {
            assert!(!secret(text), "{text}");
        }
    }
}
