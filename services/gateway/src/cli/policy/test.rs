//! `policy test`: runs the tests of policies.

use std::path::PathBuf;

use serde::Serialize;
use stategate_model::Object;
use stategate_policy::kit::{Suite, Tested, Verdict};

use super::files::{self, Unit};
use crate::cli::{
    failure::{Exit, Failure},
    output::{Form, Output, Paint},
    text,
};

/// What `policy test` is asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
As in OPA, a rule `test_…` passes if it is true, and `todo_test_…` is passed over; `with input as` and `with \
data.x as` give a rule what it is to see. Tests of a directory are run with the policies and the data.json \
beside them, and policy_test.rego without response.rego if both policies define `allow` and have tests. \
Every input that a test gives is judged by the engine of the gateway as well; where it decides otherwise, the \
test is broken.

Exit codes: 0 all passed; 1 some did not; 2 a policy or its tests cannot be run at all.

Examples:
  stategate policy test examples/policies
  stategate policy test policies -v
  stategate policy test policies/policy_test.rego --data roles.json --json")]
pub(crate) struct Args {
    /// Directories with policies and tests, or files of tests
    #[arg(value_name = "DIR", required = true)]
    paths: Vec<PathBuf>,
    /// The data document, instead of a data.json beside the tests
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Print the tests that passed as well
    #[arg(long, short)]
    verbose: bool,
}

/// A test as OPA prints it.
#[derive(Debug, Serialize)]
struct Line<'t> {
    location: Location<'t>,
    package: &'t str,
    name: &'t str,
    #[serde(skip_serializing_if = "is_false")]
    fail: bool,
    #[serde(skip_serializing_if = "is_false")]
    skip: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'t str>,
    /// In nanoseconds.
    duration: u128,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    printed: &'t [String],
    /// How many decisions of it the gateway's engine made, too.
    compared: usize,
}

#[derive(Debug, Serialize)]
struct Location<'t> {
    file: &'t str,
    row: u32,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands fields over by reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

impl<'t> From<&'t Tested> for Line<'t> {
    fn from(test: &'t Tested) -> Self {
        Self {
            location: Location {
                file: &test.file,
                row: test.line,
            },
            package: &test.package,
            name: &test.name,
            fail: test.verdict == Verdict::Failed,
            skip: test.verdict == Verdict::Skipped,
            error: match &test.verdict {
                Verdict::Broken(why) => Some(why),
                Verdict::Passed | Verdict::Failed | Verdict::Skipped => None,
            },
            duration: test.time.as_nanos(),
            printed: &test.printed,
            compared: test.compared,
        }
    }
}

/// How many tests came out how.
#[derive(Debug, Default)]
struct Counts {
    passed: usize,
    failed: usize,
    broken: usize,
    skipped: usize,
    compared: usize,
}

/// Runs the tests.
pub(super) async fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    let (paths, data) = (args.paths, args.data);
    // What they compute keeps no other task of the program from running.
    let tested = tokio::task::spawn_blocking(move || {
        let data = data.as_deref().map(files::data).transpose()?;
        let mut tested = Vec::new();
        for path in paths {
            for unit in files::units(&path)? {
                tested.extend(of_unit(&unit, data.as_ref())?);
            }
        }
        Ok::<_, Failure>(tested)
    });
    let tested = tested
        .await
        .map_err(|_| Failure::usage("the tests ended early"))??;
    if tested.is_empty() {
        return Err(Failure::usage(
            "there are no tests: they are rules `test_…` in files *_test.rego",
        ));
    }
    print(&tested, args.verbose, output)
}

fn of_unit(unit: &Unit, data: Option<&Object>) -> Result<Vec<Tested>, Failure> {
    let beside = match (&unit.data, data) {
        (Some(path), None) => Some(files::data(path)?),
        _ => None,
    };
    let suite = Suite::new(&unit.policies, &unit.tests, data.or(beside.as_ref()));
    let suite = suite.map_err(|error| {
        let names = unit.tests.iter().map(|test| test.name.as_str());
        let names: Vec<_> = names.collect();
        Failure::usage(format!("{}: {error}", names.join(", ")))
    })?;
    Ok(suite.run())
}

fn print(tested: &[Tested], is_verbose: bool, output: &mut Output) -> Result<(), Failure> {
    let mut counts = Counts::default();
    output.begin_list();
    let form = output.form().clone();
    for test in tested {
        counts.add(test);
        match &form {
            Form::Json => output.json(&Line::from(test))?,
            Form::Text(screen) => {
                if is_verbose || !matches!(test.verdict, Verdict::Passed) {
                    line(test, screen.paint, output)?;
                }
            }
        }
    }
    if let Form::Text(_) = form {
        output.line(&counts.to_string())?;
    }
    output.flush()?;
    match counts.failed + counts.broken {
        0 => Ok(()),
        failed => Err(Failure::new(
            Exit::Failed,
            format!("{failed} of {} tests did not pass", tested.len()),
        )),
    }
}

fn line(test: &Tested, paint: Paint, output: &mut Output) -> Result<(), Failure> {
    let said = match &test.verdict {
        Verdict::Passed => paint.green("PASS"),
        Verdict::Failed => paint.red("FAIL"),
        Verdict::Skipped => paint.yellow("SKIPPED"),
        Verdict::Broken(_) => paint.red("ERROR"),
    };
    let (file, package) = (text::plain(&test.file), &test.package);
    let milliseconds = test.time.as_secs_f64() * 1e3;
    output.line(&format!(
        "{file}:{} {package}.{}: {said} ({milliseconds:.1} ms)",
        test.line, test.name
    ))?;
    if let Verdict::Broken(why) = &test.verdict {
        for line in why.lines() {
            output.line(&format!("  {}", text::plain(line)))?;
        }
    }
    for printed in &test.printed {
        output.line(&format!("  {}", text::plain(printed)))?;
    }
    Ok(())
}

impl Counts {
    fn add(&mut self, test: &Tested) {
        self.compared += test.compared;
        *match test.verdict {
            Verdict::Passed => &mut self.passed,
            Verdict::Failed => &mut self.failed,
            Verdict::Skipped => &mut self.skipped,
            Verdict::Broken(_) => &mut self.broken,
        } += 1;
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed", self.passed)?;
        for (count, what) in [
            (self.failed, "failed"),
            (self.broken, "could not be run"),
            (self.skipped, "to be done"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        write!(
            f,
            "; {} decisions were made by the gateway's engine, too",
            self.compared
        )
    }
}
