//! Who may join, and who has: the tokens by their digests and the members by the digests of their keys.
//!
//! One JSON file that is replaced whole. It holds nothing that lets anybody in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use proto::JoinToken;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::authority::write_private;
use super::{AuthorityError, Refused};
use crate::access::Role;

/// Version of the file.
const VERSION: u32 = 1;

/// Tokens that have not been forgotten.
const MAX_TOKENS: usize = 10_000;

/// For so long after its end it can be said why a token is refused, and who a member was.
const MEMORY: u64 = 7 * 24 * 3600;

/// Keys as good as a member's newest: the one before, because the newest may not have arrived.
const KEYS: usize = 2;

/// Tokens and members.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Book {
    version: u32,
    /// By name.
    tokens: BTreeMap<String, Token>,
    /// By `ROLE/ID`.
    members: BTreeMap<String, Member>,
}

/// A token; times in unix seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Token {
    /// SHA-256 of the secret.
    digest: Key,
    pub(super) role: Role,
    /// The one id that it is for; empty: any that is free.
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) ends: u64,
    pub(super) used: Option<Used>,
}

/// Who used a token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Used {
    /// `ROLE/ID`.
    pub(super) by: String,
    key: Key,
    pub(super) at: u64,
}

/// Somebody who joined; times in unix seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    pub(super) role: Role,
    pub(super) id: String,
    /// The newest first.
    keys: Vec<Key>,
    pub(super) issued: u64,
    pub(super) expires: u64,
    pub(super) revoked: bool,
}

/// A SHA-256, in hex in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Key([u8; 32]);

impl From<Key> for String {
    fn from(key: Key) -> Self {
        proto::Digest(key.0).to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = proto::BadId;

    fn try_from(text: String) -> Result<Self, proto::BadId> {
        text.parse::<proto::Digest>().map(|digest| Key(digest.0))
    }
}

impl Default for Book {
    fn default() -> Self {
        Self {
            version: VERSION,
            tokens: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }
}

impl Book {
    /// Reads a book; there is none at first.
    pub(super) fn load(path: &Path) -> Result<Self, AuthorityError> {
        let damaged = |why: String| AuthorityError::Damaged {
            path: path.to_owned(),
            why,
        };
        let text = match fs::read(path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(AuthorityError::File {
                    path: path.to_owned(),
                    source,
                });
            }
            Ok(text) => text,
        };
        let book: Self = serde_json::from_slice(&text).map_err(|why| damaged(why.to_string()))?;
        if book.version == VERSION {
            Ok(book)
        } else {
            Err(damaged(format!("version {}", book.version)))
        }
    }

    /// Writes it, whole or not at all.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        let new = path.with_extension("new");
        write_private(&new, &text)?;
        fs::rename(&new, path)?;
        let folder = path.parent().map(File::open).transpose()?;
        folder.map_or(Ok(()), |folder| folder.sync_all())
    }

    /// Takes down a new token.
    pub(super) fn issue(
        &mut self,
        token: &JoinToken,
        role: Role,
        id: &str,
        now: u64,
        ends: u64,
    ) -> Result<(), Refused> {
        if self.tokens.len() >= MAX_TOKENS {
            return Err(Refused::Full);
        }
        let entry = Token {
            digest: secret(token),
            role,
            id: id.to_owned(),
            created: now,
            ends,
            used: None,
        };
        self.tokens.insert(token.name(), entry);
        Ok(())
    }

    /// The entry of a token. Whoever has its name and not its secret learns nothing of it.
    pub(super) fn knows(&self, token: &JoinToken) -> Result<&Token, Refused> {
        let found = self.tokens.get(&token.name());
        found
            .filter(|entry| entry.digest == secret(token))
            .ok_or(Refused::Unknown)
    }

    /// Uses a token up for the holder of a key, who may come again. Answers with the token's role.
    pub(super) fn redeem(
        &mut self,
        token: &JoinToken,
        wanted: &str,
        id: &str,
        key: &[u8; 32],
        now: u64,
    ) -> Result<Role, Refused> {
        let name = token.name();
        let entry = self.knows(token)?;
        let role = entry.role;
        let by = format!("{role}/{id}");
        if let Some(used) = &entry.used
            && (used.by != by || used.key.0 != *key)
        {
            let (by, at) = (used.by.clone(), used.at);
            return Err(Refused::Used { name, by, at });
        }
        if now >= entry.ends {
            let at = entry.ends;
            return Err(Refused::Ended { name, at });
        }
        if role.name() != wanted {
            let (is, wanted) = (role, wanted.to_owned());
            return Err(Refused::Role { name, is, wanted });
        }
        if !entry.id.is_empty() && entry.id != id {
            let id = entry.id.clone();
            return Err(Refused::Holder { name, id });
        }
        if entry.id.is_empty() {
            self.is_free(role, id, key, now)?;
        }
        if let Some(entry) = self.tokens.get_mut(&name) {
            let key = Key(*key);
            entry.used.get_or_insert(Used { by, key, at: now });
        }
        Ok(role)
    }

    /// Whether nobody else is known by this name.
    fn is_free(&self, role: Role, id: &str, key: &[u8; 32], now: u64) -> Result<(), Refused> {
        let who = format!("{role}/{id}");
        match self.members.get(&who) {
            Some(member) if member.expires > now && !member.has(key) => Err(Refused::Taken {
                who,
                role,
                id: id.to_owned(),
                until: member.expires,
            }),
            _ => Ok(()),
        }
    }

    /// Takes somebody in who came with a token; whoever had the name before is out.
    pub(super) fn admit(&mut self, role: Role, id: &str, key: [u8; 32], now: u64, expires: u64) {
        let member = Member {
            role,
            id: id.to_owned(),
            keys: vec![Key(key)],
            issued: now,
            expires,
            revoked: false,
        };
        self.members.insert(format!("{role}/{id}"), member);
    }

    /// Takes down a member's next key; the one that it came with stays good.
    pub(super) fn renew(
        &mut self,
        role: Role,
        id: &str,
        with: [u8; 32],
        key: [u8; 32],
        now: u64,
        expires: u64,
    ) -> Result<(), Refused> {
        let member = self
            .members
            .get_mut(&format!("{role}/{id}"))
            .filter(|member| !member.revoked && member.has(&with))
            .ok_or(Refused::NoMember)?;
        member.keys = vec![Key(key), Key(with)];
        member.keys.dedup();
        member.keys.truncate(KEYS);
        (member.issued, member.expires) = (now, expires);
        Ok(())
    }

    /// Is somebody of this name in, with this key?
    pub(super) fn holds(&self, role: Role, id: &str, key: &[u8; 32]) -> bool {
        let member = self.members.get(&format!("{role}/{id}"));
        member.is_some_and(|member| !member.revoked && member.has(key))
    }

    /// Takes out a token, or a member: its name stays taken until its certificate has ended.
    pub(super) fn revoke(&mut self, name: &str) -> Result<(), Refused> {
        if self.tokens.remove(name).is_some() {
            return Ok(());
        }
        let member = self.members.get_mut(name);
        let member = member.ok_or_else(|| Refused::NotFound(name.to_owned()))?;
        member.revoked = true;
        Ok(())
    }

    /// Drops what ended long ago.
    pub(super) fn forget(&mut self, now: u64) {
        let recent = |end: u64| end.saturating_add(MEMORY) > now;
        self.tokens.retain(|_, token| recent(token.ends));
        self.members.retain(|_, member| recent(member.expires));
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = (&String, &Token)> {
        self.tokens.iter()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }
}

impl Member {
    fn has(&self, key: &[u8; 32]) -> bool {
        self.keys.iter().any(|own| own.0 == *key)
    }
}

fn secret(token: &JoinToken) -> Key {
    Key(Sha256::digest(token.secret()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 1000;

    fn with_token(role: Role, id: &str) -> (Book, JoinToken) {
        let (mut book, token) = (Book::default(), JoinToken::draw([7; 32]).unwrap());
        book.issue(&token, role, id, 0, END).unwrap();
        (book, token)
    }

    fn join(
        book: &mut Book,
        token: &JoinToken,
        id: &str,
        key: u8,
        now: u64,
    ) -> Result<(), Refused> {
        let role = book.redeem(token, "sensor", id, &[key; 32], now)?;
        book.admit(role, id, [key; 32], now, now + 100);
        Ok(())
    }

    #[test]
    fn a_token_is_good_for_one_key_which_may_come_again() {
        let (mut book, token) = with_token(Role::Sensor, "");
        join(&mut book, &token, "a", 1, 10).unwrap();
        join(&mut book, &token, "a", 1, 11).unwrap();
        for (id, key) in [("a", 2), ("b", 1)] {
            let why = join(&mut book, &token, id, key, 12).unwrap_err();
            assert!(matches!(why, Refused::Used { at: 10, .. }), "{why}");
        }
        assert!(book.holds(Role::Sensor, "a", &[1; 32]));
    }

    #[test]
    fn the_end_the_role_the_holder_and_the_secret_are_looked_at() {
        let (mut book, token) = with_token(Role::Sensor, "a");
        let why = join(&mut book, &token, "b", 1, 1).unwrap_err();
        assert!(matches!(why, Refused::Holder { .. }), "{why}");
        let why = join(&mut book, &token, "a", 1, END).unwrap_err();
        assert!(matches!(why, Refused::Ended { at: END, .. }), "{why}");
        let why = book.redeem(&token, "relay", "a", &[1; 32], 1).unwrap_err();
        assert!(matches!(why, Refused::Role { .. }), "{why}");
        let other = JoinToken::draw([7; 32]).unwrap();
        let (name, rest) = (token.reveal(), other.reveal());
        let (name, rest) = (name.split('.').nth(1).unwrap(), rest);
        let forged = rest.replacen(rest.split('.').nth(1).unwrap(), name, 1);
        let why = join(&mut book, &forged.parse().unwrap(), "a", 1, 1).unwrap_err();
        assert!(matches!(why, Refused::Unknown), "{why}");
    }

    #[test]
    fn a_name_with_a_living_certificate_goes_to_another_key_only_by_name() {
        let (mut book, first) = with_token(Role::Sensor, "");
        join(&mut book, &first, "a", 1, 10).unwrap();
        let any = JoinToken::draw([7; 32]).unwrap();
        book.issue(&any, Role::Sensor, "", 0, END).unwrap();
        let why = join(&mut book, &any, "a", 2, 20).unwrap_err();
        assert!(matches!(why, Refused::Taken { until: 110, .. }), "{why}");
        let named = JoinToken::draw([7; 32]).unwrap();
        book.issue(&named, Role::Sensor, "a", 0, END).unwrap();
        join(&mut book, &named, "a", 2, 20).unwrap();
        assert!(!book.holds(Role::Sensor, "a", &[1; 32]), "it was replaced");
        // The refused token was not used up, and takes the name once the certificate has ended.
        join(&mut book, &any, "a", 3, 120).unwrap();
    }

    #[test]
    fn the_key_before_stays_good_until_the_next_is_used() {
        let (mut book, token) = with_token(Role::Sensor, "");
        join(&mut book, &token, "a", 1, 10).unwrap();
        let mut renew = |with, key| book.renew(Role::Sensor, "a", [with; 32], [key; 32], 20, 120);
        renew(1, 2).unwrap();
        // The answer was lost.
        renew(1, 3).unwrap();
        assert!(renew(2, 9).is_err(), "nobody has that certificate");
        renew(3, 4).unwrap();
        assert!(renew(1, 9).is_err());
        assert!(book.holds(Role::Sensor, "a", &[3; 32]) && book.holds(Role::Sensor, "a", &[4; 32]));
        book.revoke("sensor/a").unwrap();
        assert!(!book.holds(Role::Sensor, "a", &[4; 32]));
        assert!(book.revoke("sensor/b").is_err());
    }

    #[test]
    fn what_ended_long_ago_is_forgotten_and_the_rest_survives_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.json");
        let (mut book, token) = with_token(Role::Relay, "x");
        book.save(&path).unwrap();
        assert_eq!(Book::load(&path).unwrap(), book);
        let secret = token.reveal();
        let secret = secret.split('.').nth(2).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains(secret));
        book.forget(END + MEMORY);
        assert_eq!(book, Book::default());
    }
}
