//! The administrator's side: tokens are made, listed and revoked over the admin socket, each change told in the audit trail.

use std::time::Duration;

use async_trait::async_trait;
use proto::enrolment::tokens_server::{Tokens as Service, TokensServer};
use proto::enrolment::{
    CreateReply, CreateRequest, ListReply, ListRequest, Member, RevokeReply, RevokeRequest, Token,
};
use tonic::{Request, Response, Status};

use super::{Enrolment, Refused, book};
use crate::audit::{Act, Actor, Audit};

/// The service for the admin listener; without an authority it says how to get one.
pub(crate) fn into_server(
    enrolment: Option<Enrolment>,
    audit: Audit,
) -> TokensServer<impl Service> {
    TokensServer::new(AdminDoor { enrolment, audit })
}

struct AdminDoor {
    enrolment: Option<Enrolment>,
    audit: Audit,
}

impl AdminDoor {
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Enrolment) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Status> {
        let enrolment = self.enrolment.clone().ok_or_else(|| {
            Status::failed_precondition(
                "this relay gives no certificates; write `tls: {enrolment: true}` in its `relay` section",
            )
        })?;
        let worked = tokio::task::spawn_blocking(move || work(&enrolment)).await;
        let worked = worked.map_err(|_| Status::unavailable("the relay is stopping"))?;
        worked.map_err(|refused| Status::from(&refused))
    }
}

#[async_trait]
impl Service for AdminDoor {
    async fn create(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateReply>, Status> {
        let actor = Actor::of(&request);
        let request = request.into_inner();
        let made = self.work(move |enrolment| {
            let CreateRequest {
                role,
                ttl_seconds,
                id,
            } = request;
            let token = enrolment.create(&role, Duration::from_secs(ttl_seconds), &id)?;
            let about = enrolment.token(&token.name());
            Ok((token, about))
        });
        let (token, about) = made.await?;
        let whom = match about.as_ref().map_or("", |about| &about.id) {
            "" => "anybody".to_owned(),
            id => format!("`{id}`"),
        };
        let role = about.as_ref().map_or("", |about| &about.role);
        let act = Act {
            action: "create",
            target: format!("token {}", token.name()),
            detail: format!("for {whom} to join as {role}"),
        };
        let audited = self.audit.tell(actor, act).await;
        Ok(Response::new(CreateReply {
            token: token.reveal(),
            about,
            audited,
        }))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let listed = self.work(|enrolment| Ok(enrolment.list())).await?;
        Ok(Response::new(listed))
    }

    async fn revoke(
        &self,
        request: Request<RevokeRequest>,
    ) -> Result<Response<RevokeReply>, Status> {
        let actor = Actor::of(&request);
        let name = request.into_inner().name;
        let target = name.clone();
        self.work(move |enrolment| enrolment.revoke(&name)).await?;
        let act = Act {
            action: "revoke",
            target,
            detail: String::new(),
        };
        let audited = self.audit.tell(actor, act).await;
        Ok(Response::new(RevokeReply { audited }))
    }
}

impl Enrolment {
    fn list(&self) -> ListReply {
        let book = self.book();
        ListReply {
            tokens: book
                .tokens()
                .map(|(name, token)| shown(name, token))
                .collect(),
            members: book.members().map(shown_member).collect(),
        }
    }

    fn token(&self, name: &str) -> Option<Token> {
        let book = self.book();
        let found = book.tokens().find(|(own, _)| *own == name);
        found.map(|(name, token)| shown(name, token))
    }
}

fn shown(name: &str, token: &book::Token) -> Token {
    let used = token.used.as_ref();
    Token {
        name: name.to_owned(),
        role: token.role.name().to_owned(),
        id: token.id.clone(),
        created_unix: token.created,
        expires_unix: token.ends,
        used_by: used.map(|used| used.by.clone()).unwrap_or_default(),
        used_unix: used.map_or(0, |used| used.at),
    }
}

fn shown_member(member: &book::Member) -> Member {
    Member {
        role: member.role.name().to_owned(),
        id: member.id.clone(),
        issued_unix: member.issued,
        expires_unix: member.expires,
        revoked: member.revoked,
    }
}
