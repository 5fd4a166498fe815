#[derive(clap::Args)]
pub(crate) struct DemoArgs {}
pub(crate) fn run(_: DemoArgs) -> std::process::ExitCode {
    eprintln!("gprxy demo is not part of this build.");
    std::process::ExitCode::FAILURE
}
