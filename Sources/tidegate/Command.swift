import ArgumentParser
import Glibc
import Settings

/// What is typed.
@main
struct Tidegate: ParsableCommand {
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "tidegate",
        abstract: "An MQTT gateway that loses nothing while the cloud or the power is away.",
        version: version,
        subcommands: [
            Run.self, Check.self, Reload.self, Doctor.self, ProfileCommand.self, Clients.self,
            DeadLettersCommand.self, AuditCommand.self, JournalCommand.self,
        ])
}

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Runs the gateway until SIGTERM or SIGINT.",
        discussion: "SIGHUP, and `tidegate reload`, make it read its configuration again.")

    @Option(help: "The configuration file; /etc/tidegate/tidegate.yaml, if it is there.")
    var config: String?

    @Option(help: ArgumentHelp("Listen here, and nowhere else.", valueName: "address:port"))
    var listen: String?

    @Option(help: "The directory that keeps sessions and messages.")
    var state: String?

    func run() throws {
        let source = SettingsSource(file: config, listen: listen, state: state)
        let checked: CheckedSettings
        do throws(SettingsErrors) {
            checked = try CheckedSettings(source.read())
        } catch {
            throw refuse(error)
        }
        serve(checked, from: source)
    }
}

struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Says what is wrong with a configuration file, and where.")

    @Argument(help: "The file; /etc/tidegate/tidegate.yaml when none is named.")
    var file: String = Settings.defaultPath

    func run() throws {
        do throws(SettingsErrors) {
            _ = try CheckedSettings(try Settings.load(path: file))
        } catch {
            throw refuse(error)
        }
        print("\(file) is good")
    }
}

/// Tells what is wrong with the configuration; the exit status says that starting again will not help.
func refuse(_ errors: SettingsErrors) -> ExitCode {
    complain("\(errors)")
    return ExitCode(ExitStatus.configuration.rawValue)
}
