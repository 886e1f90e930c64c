//! Callers with tokens, and the policies that judge them: `--protected`.

use std::sync::OnceLock;

use serde_json::json;
use stategate_servers::Issuer;
use tonic::metadata::{Ascii, MetadataValue};

/// How many callers there are.
const CALLERS: usize = 10;
/// Ten rules, as a deployment might have them.
const RULES: &str = r#"
reads := {"/stategate.EntityService/Get", "/stategate.EntityService/Search", "/stategate.EventService/Search", "/stategate.EventService/Get", "/stategate.EventService/Stream"}
is_admin if "admin" in input.claims.roles
is_support if "support" in input.claims.roles
same_tenant if input.claims.tenant == input.body.domain
same_tenant if input.claims.tenant == input.body.entity.domain
internal if startswith(input.body.type, "internal-")
owner if input.body.key == input.claims.sub
may_read if { same_tenant; not internal }
may_read if { is_support; not internal }
may_write if { same_tenant; not internal }
may_write if owner
may_write if is_admin
allow if { input.method in reads; may_read }
allow if { not input.method in reads; may_write }
"#;
/// What answers and events are judged by: none is without a domain of the caller's, and writes are answered.
const EVENTS: &str = r#"
allow if input.method != "/stategate.EventService/Stream"
allow if input.claims.tenant == input.body.entity.domain
"#;

struct Protection {
    issuer: Issuer,
    headers: Vec<MetadataValue<Ascii>>,
}

static PROTECTION: OnceLock<Protection> = OnceLock::new();

/// Has every call carry a token of a tenant's caller from now on, and every gateway ask for one.
pub(crate) fn begin(tenant: &str) -> anyhow::Result<()> {
    let issuer = Issuer::new();
    let headers = (0..CALLERS).map(|n| {
        let claims = json!({
            "sub": format!("caller-{n}"), "tenant": tenant, "roles": ["reader", "writer"],
            "email": format!("caller-{n}@acme.example"), "scope": "openid profile email",
        });
        format!("Bearer {}", issuer.token(&claims)).parse()
    });
    let headers = headers.collect::<Result<_, _>>()?;
    let _ = PROTECTION.set(Protection { issuer, headers });
    Ok(())
}

/// What the n-th connection says who it is of.
pub(crate) fn authorization(n: usize) -> Option<MetadataValue<Ascii>> {
    let protection = PROTECTION.get()?;
    protection
        .headers
        .get(n % protection.headers.len())
        .cloned()
}

/// What a gateway is started with.
pub(crate) fn variables() -> Option<Vec<(&'static str, String)>> {
    let protection = PROTECTION.get()?;
    let mut variables = protection.issuer.variables(RULES, EVENTS);
    variables.push(("STATEGATE_MAX_CALLER_RATE", "0".to_owned()));
    Some(variables)
}
