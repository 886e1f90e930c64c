//! A file with passwords, as libpq has it: lines of `host:port:database:user:password`, of which the first
//! that fits counts.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tokio_postgres::{Config, config::Host};

use crate::Result;

use super::failure::refused;

/// Takes the password for the servers of `config` from a file.
pub(super) fn look_up(path: &Path, config: &mut Config) -> Result<()> {
    let shown = path.display();
    let failed = |error: std::io::Error| refused(format!("`passfile` {shown}: {}", error.kind()));
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(refused(format!(
            "`passfile` {shown} can be read by others; take their rights away (chmod 0600)"
        )));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let user = config.get_user().ok_or_else(|| {
        refused("`addr` names no user, whose password is to be found in `passfile`; name one")
    })?;
    let database = config.get_dbname().unwrap_or(user);
    let mut hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(_) => "localhost".to_owned(),
        })
        .collect();
    if hosts.is_empty() {
        hosts.extend(config.get_hostaddrs().iter().map(ToString::to_string));
    }
    let ports = config.get_ports();
    let mut found = hosts.iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5_432);
        password(&text, [host, &port.to_string(), database, user])
    });
    let first = found.next().flatten();
    let Some(password) = first else {
        return Err(refused(format!(
            "`passfile` {shown} has no line for the host, port, database and user of `addr`"
        )));
    };
    if found.any(|other| other.as_ref() != Some(&password)) {
        return Err(refused(format!(
            "`passfile` {shown} has not the same password for all hosts of `addr`; one is used for all"
        )));
    }
    config.password(password);
    Ok(())
}

/// The password of the first line that fits.
fn password(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().find_map(|line| {
        if line.starts_with('#') {
            return None;
        }
        let fields = fields(line);
        let (of, password) = fields.split_at_checked(4)?;
        let fits = of
            .iter()
            .zip(wanted)
            .all(|((field, is_literal), wanted)| field == wanted || field == "*" && !is_literal);
        // A colon in the password may stand as it is.
        let password: Vec<&str> = password.iter().map(|(field, _)| field.as_str()).collect();
        (fits && !password.is_empty()).then(|| password.join(":"))
    })
}

/// The fields of a line, and whether any character of them was escaped.
fn fields(line: &str) -> Vec<(String, bool)> {
    let mut fields = vec![(String::new(), false)];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let Some((field, is_literal)) = fields.last_mut() else {
            break;
        };
        match c {
            ':' => fields.push((String::new(), false)),
            '\\' => {
                field.extend(chars.next());
                *is_literal = true;
            }
            c => field.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# host:port:db:user:no\n\
                    other:5432:db:me:no\n\
                    db\\:1:*:d\\\\b:me:pa\\:ss:word\n\
                    \\*:5432:db:me:star\n\
                    *:5433:db:me:later\n\
                    broken\n";
        let of = |host: &str, port: &str, db: &str| password(text, [host, port, db, "me"]);
        assert_eq!(of("db:1", "9", "d\\b").as_deref(), Some("pa:ss:word"));
        assert_eq!(of("any", "5433", "db").as_deref(), Some("later"));
        assert_eq!(of("any", "5432", "db"), None);
        assert_eq!(of("*", "5432", "db").as_deref(), Some("star"));
    }
}
