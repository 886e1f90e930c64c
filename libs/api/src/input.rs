//! What a policy decides on, the same whatever the transport (contract §7).

use std::sync::{Arc, LazyLock};

use stategate_policy::Document;

use crate::{context::Context, operation::Operation as _, request::Subscribe};

/// The names of the members, made once.
struct Names {
    claims: Arc<str>,
    method: Arc<str>,
    metadata: Arc<str>,
    body: Arc<str>,
    client_stream: Arc<str>,
    server_stream: Arc<str>,
    client_certificate: Arc<str>,
    subject: Arc<str>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| Names {
    claims: "claims".into(),
    method: "method".into(),
    metadata: "metadata".into(),
    body: "body".into(),
    client_stream: "client_stream".into(),
    server_stream: "server_stream".into(),
    client_certificate: "client_certificate".into(),
    subject: "subject".into(),
});

/// The input of a decision on a message of a call.
pub(crate) fn input(method: &'static str, context: &Context, body: Document) -> Document {
    let names = &*NAMES;
    let claims = match &context.caller {
        Some(caller) => caller.claims().clone(),
        None => Document::object::<Arc<str>>([]),
    };
    let name = |name: &Arc<str>| Arc::clone(name);
    let members = [
        (name(&names.claims), claims),
        (name(&names.method), Document::from(method)),
        (name(&names.metadata), context.seen.metadata.clone()),
        (name(&names.body), body),
        (name(&names.client_stream), Document::from(false)),
        (
            name(&names.server_stream),
            Document::from(method == Subscribe::METHOD),
        ),
    ];
    let certificate = context.seen.certificate.as_ref().map(|subject| {
        let subject = Document::from(Arc::clone(subject));
        let certificate = Document::object([(name(&names.subject), subject)]);
        (name(&names.client_certificate), certificate)
    });
    Document::object(members.into_iter().chain(certificate))
}
