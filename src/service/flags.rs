//! The command line of both services: their shared flags, and error messages for invalid flags.

use std::{ffi::OsString, fmt, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, error::ErrorKind};

use http::Uri;

use super::{
    chain::Chain,
    logs::{LogFormat, Logging},
    process::Telemetry,
    trace::export::Traces,
};

/// The exit code for an invalid flag or environment variable.
pub const USAGE_EXIT_CODE: u8 = 2;

/// The flags that both services have.
#[derive(Debug, Clone, Args)]
pub struct SharedFlags {
    /// Write the bound addresses as JSON to this file once the service is serving; the file is removed at exit
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,

    /// Accept calls from other machines although callers are not authenticated yet
    #[arg(long)]
    pub insecure_no_auth: bool,

    /// Serve gRPC reflection even on an address that other machines can reach; on loopback it is always served
    #[arg(long)]
    pub reflection: bool,

    /// The log level: error, warn, info, debug, trace, or directives such as `info,switchboard_router=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log_level: String,

    /// The format of log lines on standard output
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,

    /// Send traces to this OpenTelemetry collector, OTLP over gRPC, for example `http://127.0.0.1:4317` [default: traces are not sent]
    #[arg(long, value_name = "URL", value_parser = plain_url)]
    pub otlp_endpoint: Option<Uri>,

    /// The sampling rate, 0 to 1, for calls that arrive without a sampling decision
    #[arg(long, value_name = "RATIO", default_value = "1", value_parser = ratio)]
    pub trace_ratio: f64,
}

impl SharedFlags {
    /// Whether gRPC reflection is served on this address.
    #[must_use]
    pub const fn serves_reflection(&self, listen_addr: &SocketAddr) -> bool {
        self.reflection || listen_addr.ip().is_loopback()
    }

    /// Returns the options of logs and traces for the process of `service`.
    ///
    /// # Errors
    ///
    /// One line that explains what is wrong with `--log-level`.
    pub fn telemetry(&self, service: &'static str) -> Result<Telemetry, String> {
        let logging = Logging::parse(&self.log_level, self.log_format).map_err(|error| {
            format!(
                "invalid value '{}' for '--log-level <FILTER>': {}",
                self.log_level,
                Chain(&error)
            )
        })?;
        let traces = self.otlp_endpoint.clone().map(|collector| Traces {
            collector,
            ratio: self.trace_ratio,
            service,
        });
        Ok(Telemetry { logging, traces })
    }

    /// Refuses a listen address that other machines can reach, unless `--insecure-no-auth` is set.
    ///
    /// # Errors
    ///
    /// One line that names the invalid flag and the possible remedies.
    pub fn check_exposure(&self, listen_addr: &SocketAddr) -> Result<(), String> {
        if listen_addr.ip().is_loopback() || self.insecure_no_auth {
            return Ok(());
        }
        Err(format!(
            "--listen-addr {listen_addr} can be reached from other machines, and callers are not authenticated yet: use a \
             loopback address such as 127.0.0.1, or accept the risk with --insecure-no-auth"
        ))
    }
}

/// Parses a duration such as `10s`, `1m 30s` or `250ms`, as a value parser for clap.
///
/// # Errors
///
/// A description of what is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// Formats a duration in the form that [`duration`] parses.
pub fn format_duration(duration: Duration) -> impl fmt::Display {
    humantime::format_duration(duration)
}

/// Parses the URL of another service without TLS, as a value parser for clap.
///
/// # Errors
///
/// A description of the valid form.
pub fn plain_url(text: &str) -> Result<Uri, String> {
    const FORM: &str = "must be `http://` with a host and a port, for example `http://127.0.0.1:50051`";
    let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
    if uri.scheme_str() == Some("https") {
        return Err(format!(
            "{FORM}: `https://` is not supported yet, only connections without TLS"
        ));
    }
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(format!("{FORM}: a user name or a password is not supported"));
    }
    let is_plain = uri.scheme_str() == Some("http")
        && uri.host().is_some_and(|host| !host.is_empty())
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none();
    if is_plain { Ok(uri) } else { Err(FORM.to_owned()) }
}

fn ratio(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

/// Parses the command line. Every flag can also be set by an environment variable: `prefix`, then the flag's name in
/// upper case.
///
/// # Errors
///
/// The exit code of the process, after printing the help, the version, or one line on standard error about an invalid
/// value.
pub fn parse<T: Parser>(prefix: &str, args: impl IntoIterator<Item = OsString>) -> Result<T, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    let result = command::<T>(prefix, &args)
        .try_get_matches_from(args)
        .and_then(|mut matches| T::from_arg_matches_mut(&mut matches));
    result.map_err(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            // A closed output is ignored: there is no other place for the text.
            drop(error.print());
            return ExitCode::SUCCESS;
        }
        usage_error(&one_line(&error.to_string()))
    })
}

/// Returns the command, with an environment variable for each flag that applies to `args`.
///
/// If `args` begin with a subcommand, the flags of the program itself have no variables: clap would parse them all the
/// same, and an invalid one would stop a subcommand that does not use it.
fn command<T: Parser>(prefix: &str, args: &[OsString]) -> clap::Command {
    let command = T::command().mut_subcommands(|subcommand| with_variables(subcommand, prefix));
    match args.get(1).and_then(|first| command.find_subcommand(first)) {
        Some(_) => command,
        None => with_variables(command, prefix),
    }
}

fn with_variables(command: clap::Command, prefix: &str) -> clap::Command {
    command.mut_args(|arg| {
        if arg.get_long().is_none() || matches!(arg.get_id().as_str(), "help" | "version") {
            return arg;
        }
        let name = format!("{prefix}{}", arg.get_id().as_str().to_ascii_uppercase());
        arg.env(name)
    })
}

/// Converts the text of a clap error to one line: the problem and clap's suggestions, without the usage.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let wanted = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let joined: String = wanted
        .filter(|line| !line.is_empty())
        .map(|line| {
            let separator = if line.starts_with("tip:") { "; " } else { " " };
            format!("{separator}{line}")
        })
        .collect();
    joined.trim_start().trim_start_matches("error: ").to_owned()
}

/// Prints an error in flags or environment variables as one line, and returns [`USAGE_EXIT_CODE`].
#[must_use]
#[expect(clippy::print_stderr, reason = "logs are not set up before the flags are read")]
pub fn usage_error(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(USAGE_EXIT_CODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(insecure_no_auth: bool) -> SharedFlags {
        SharedFlags {
            ready_file: None,
            insecure_no_auth,
            reflection: false,
            log_level: "info".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: None,
            trace_ratio: 1.0,
        }
    }

    #[derive(Debug, Parser)]
    #[command(name = "program", args_conflicts_with_subcommands = true)]
    struct Cli {
        #[command(subcommand)]
        subcommand: Option<Subcommand>,
        #[command(flatten)]
        own: Own,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Subcommand {
        Own(Own),
        Other {
            #[arg(long)]
            file: Option<PathBuf>,
        },
    }

    #[derive(Debug, Args)]
    struct Own {
        #[arg(long, default_value = "127.0.0.1:1")]
        listen_addr: SocketAddr,
        #[arg(long)]
        log_format: Option<LogFormat>,
    }

    fn args(args: &[&str]) -> Vec<OsString> {
        ["program"].iter().chain(args).map(OsString::from).collect()
    }

    /// The variables that clap would read for these arguments, of the program and of its subcommands.
    fn variables(arguments: &[&str]) -> Vec<String> {
        let command = command::<Cli>("X_", &args(arguments));
        let commands = std::iter::once(&command).chain(command.get_subcommands());
        let found = commands.flat_map(|command| {
            let variables = command.get_arguments().filter_map(clap::Arg::get_env);
            variables.map(|variable| format!("{} {}", command.get_name(), variable.display()))
        });
        found.collect()
    }

    #[test]
    fn the_programs_own_flags_have_variables_only_if_no_subcommand_follows() {
        let of_subcommands = ["own X_LISTEN_ADDR", "own X_LOG_FORMAT", "other X_FILE"];
        let of_program = ["program X_LISTEN_ADDR", "program X_LOG_FORMAT"];
        for bare in [&[][..], &["--listen-addr", "127.0.0.1:2"], &["--help"], &["elsewhere"]] {
            assert_eq!(variables(bare), [&of_program[..], &of_subcommands].concat(), "{bare:?}");
        }
        for named in [&["own"][..], &["other", "--file", "x"]] {
            assert_eq!(variables(named), of_subcommands, "{named:?}");
        }
    }

    #[test]
    fn an_error_is_one_line_with_the_suggestions_of_clap() {
        for (arguments, expected) in [
            (
                &["--listen-adr", "127.0.0.1:2"][..],
                "unexpected argument '--listen-adr' found; tip: a similar argument exists: '--listen-addr'",
            ),
            (
                &["othr"],
                "unrecognized subcommand 'othr'; tip: a similar subcommand exists: 'other'",
            ),
            (
                &["--log-format", "xml"],
                "invalid value 'xml' for '--log-format <LOG_FORMAT>' [possible values: text, json]",
            ),
            (
                &["--listen-addr", "127.0.0.1:2", "other"],
                "the subcommand 'other' cannot be used with '--listen-addr <LISTEN_ADDR>'",
            ),
        ] {
            let error = Cli::try_parse_from(args(arguments)).unwrap_err();
            assert_eq!(one_line(&error.to_string()), expected);
        }
    }

    #[test]
    fn a_plain_url_has_a_host_and_no_credentials() {
        for (url, is_plain) in [
            ("http://registry:50051", true),
            ("http://[::1]:50051/", true),
            ("https://registry:50051", false),
            ("registry:50051", false),
            ("http://registry:50051/path", false),
            ("http://user:password@registry:50051", false),
        ] {
            assert_eq!(plain_url(url).is_ok(), is_plain, "{url}");
        }
    }

    #[test]
    fn only_loopback_is_allowed_without_authentication() {
        for (address, allowed) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("10.0.0.1:1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(flags(false).check_exposure(&address).is_ok(), allowed, "{address}");
            assert!(flags(true).check_exposure(&address).is_ok());
            assert_eq!(flags(true).serves_reflection(&address), allowed, "{address}");
        }
    }

    #[test]
    fn a_url_that_is_not_plain_is_refused_with_the_cause() {
        assert!(plain_url("http://registry:50051").is_ok());
        for (text, cause) in [
            ("https://registry:50051", "`https://` is not supported yet"),
            (
                "http://user:secret@registry:50051",
                "a user name or a password is not supported",
            ),
            ("registry:50051", "must be `http://` with a host and a port"),
            ("http://registry:50051/v1", "must be `http://` with a host and a port"),
        ] {
            let error = plain_url(text).unwrap_err();
            assert!(error.contains(cause) && !error.contains("secret"), "{error}");
        }
    }
}
