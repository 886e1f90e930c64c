//! What a policy decides on, the same whatever the transport (contract §7).

use std::sync::Arc;

use stategate_policy::{Document, Message, names};

use crate::{context::Context, operation::Operation as _, request::Subscribe};

names! {
    CLAIMS = "claims";
    METHOD = "method";
    METADATA = "metadata";
    BODY = "body";
    CLIENT_STREAM = "client_stream";
    SERVER_STREAM = "server_stream";
    CLIENT_CERTIFICATE = "client_certificate";
    SUBJECT = "subject";
}

/// The input of a decision on a message of a call.
pub(crate) fn input(method: &'static str, context: &Context, body: Document) -> Document {
    let claims = match &context.caller {
        Some(caller) => caller.claims().clone(),
        None => Message::new().into(),
    };
    let certificate = context.seen.certificate.as_ref().map(|subject| {
        let certificate = Message::new().member(SUBJECT, Arc::clone(subject));
        Document::from(certificate)
    });
    let input = Message::new()
        .member(CLAIMS, claims)
        .member(METHOD, method)
        .member(METADATA, context.seen.metadata.clone())
        .member(BODY, body)
        .member(CLIENT_STREAM, false)
        .member(SERVER_STREAM, method == Subscribe::METHOD)
        .optional(CLIENT_CERTIFICATE, certificate);
    input.into()
}
