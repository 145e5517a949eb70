import ArgumentParser
import Operations
import Settings

/// `tidegate reload`: the configuration of a running gateway, read again.
struct Reload: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Makes the running gateway read its configuration again.",
        discussion: """
            Routes, uplinks and limits change without losing what is queued. A file with a mistake changes nothing, and \
            says what is wrong. What cannot change while the gateway runs is named: it needs a restart.
            """)

    @OptionGroup var store: StoreOptions

    func run() throws { try store.ask(.reload) }
}

extension StoreOptions {
    /// Asks the gateway that runs on this store, and says what it answers.
    func ask(_ command: AdminCommand) throws {
        // With a state directory the file is not needed to find the gateway, however broken it is.
        let path = try state ?? settings().state
        let answer: AdminAnswer
        do throws(ControlFailure) {
            answer = try ControlPath(state: path).ask(command)
        } catch {
            complain("\(error)")
            throw ExitCode(ExitStatus.failed.rawValue)
        }
        for line in answer.lines {
            if answer.isGood { print(line) } else { complain(line) }
        }
        if !answer.isGood { throw ExitCode(ExitStatus.failed.rawValue) }
    }
}
