//! A problem as a status of gRPC.

use std::collections::HashMap;

use stategate_api::{
    Problem,
    problem::{Code as Row, ERROR_DOMAIN},
};
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The status of a problem: its row of the one table there is, with the details of `google.rpc`.
pub fn status(problem: Problem) -> Status {
    let row = problem.render();
    let metadata: HashMap<_, _> = row
        .metadata
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let mut details = ErrorDetails::new();
    details.set_error_info(row.reason, ERROR_DOMAIN, metadata);
    if let Some(invalid) = &row.violation {
        details.add_bad_request_violation(invalid.field.to_string(), invalid.problem.to_string());
    }
    if let Some(delay) = row.retry {
        details.set_retry_info(Some(delay));
    }
    let mut status = Status::with_error_details(code(row.code), row.message, details);
    for (name, value) in row.headers {
        let value = MetadataValue::from_static(value);
        status.metadata_mut().insert(name, value);
    }
    status
}

fn code(code: Row) -> Code {
    Code::from_i32(code as i32)
}

#[cfg(test)]
mod tests {
    use stategate_model::{Invalid, Version};

    use super::*;

    #[test]
    fn every_status_names_its_reason() {
        let status_of = status;
        let status = status_of(Problem::VersionMismatch {
            current: Some(Version::new(7)),
        });
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (status.code(), info.reason.as_str(), info.domain.as_str()),
            (Code::Aborted, "VERSION_MISMATCH", "stategate")
        );
        assert_eq!(info.metadata["current_version"], "7");

        let status = status_of(Problem::from(Invalid::new("key", "must not be empty")));
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(
            (
                violations[0].field.as_str(),
                violations[0].description.as_str()
            ),
            ("key", "must not be empty")
        );

        let status = status_of(Problem::Elsewhere {
            method: "Get",
            service: "query",
        });
        assert_eq!(status.metadata().get("service").unwrap(), "query");
        assert!(
            status_of(Problem::StorageUnavailable)
                .get_details_retry_info()
                .is_some()
        );
    }
}
