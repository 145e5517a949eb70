import Foundation
import Workbench

/// `drill --gateway PATH [--storm] [--cloud MAKE] [--seconds N] [--seed N] [--state DIR]`: the gateway between real
/// clients and a real broker, through cut links and SIGKILLs, every message counted.
@main
struct DrillCommand {
    var gateway: String
    var seconds = 60
    var seed = Seed.ofThisRun
    /// Besides cuts and kills, everything else that befalls an uplink, the cloud's own death included.
    var isStorm = false
    var cloud = CloudBroker.Make.mosquitto
    var parent = "/var/tmp"

    /// What Debian's RabbitMQ does not know it cannot be asked for.
    var cloudQoSMax: Int { cloud == .rabbitMQ ? 1 : 2 }
    var cloudVersion: Client.Version { cloud == .rabbitMQ ? .v311 : .v5 }

    static let usage = """
        usage: drill --gateway PATH [--storm] [--cloud MAKE] [--seconds N] [--seed N] [--state DIR]
          --gateway PATH  the tidegate binary to put to the test
          --storm         also black-holes and slows the uplink, cuts it within packets, kills the cloud, and makes
                          it lose its memory
          --cloud MAKE    mosquitto, or rabbitmq with its MQTT plugin
          --seconds N     how long messages flow; at least \(Schedule.secondsMin), 60 when not given; in a storm at
                          least \(Schedule.stormSecondsMin), 120 when not given
          --seed N        repeats the events of an earlier drill
          --state DIR     a directory on a real disk for everything written; /var/tmp when not given

        """

    static func main() {
        let command: DrillCommand
        do {
            command = try DrillCommand(Array(CommandLine.arguments.dropFirst()))
        } catch {
            FileHandle.standardError.write(Data("drill: \(error)\n\(usage)".utf8))
            exit(64)
        }
        Interruption.watch()
        do {
            exit(try command.run())
        } catch {
            FileHandle.standardError.write(Data("drill: \(error)\n".utf8))
            exit(1)
        }
    }

    init(_ arguments: [String]) throws {
        var values: [String: String] = [:]
        var rest = arguments[...]
        while let name = rest.popFirst() {
            if name == "--storm" {
                isStorm = true
                seconds = 120
                continue
            }
            guard ["--gateway", "--cloud", "--seconds", "--seed", "--state"].contains(name) else {
                throw WorkbenchError("unknown argument \(name)")
            }
            guard let value = rest.popFirst() else { throw WorkbenchError("\(name) needs a value") }
            values[name] = value
        }
        guard let gateway = values["--gateway"] else { throw WorkbenchError("--gateway is missing") }
        guard access(gateway, X_OK) == 0 else {
            throw WorkbenchError("\(gateway) is not there, or not executable")
        }
        self.gateway = gateway
        if let text = values["--cloud"] {
            guard let make = CloudBroker.Make(rawValue: text) else {
                throw WorkbenchError("--cloud is mosquitto or rabbitmq")
            }
            guard make.isInstalled else { throw WorkbenchError("\(text) is not installed") }
            cloud = make
        }
        if let text = values["--seconds"] {
            let least = isStorm ? Schedule.stormSecondsMin : Schedule.secondsMin
            guard let number = Int(text), number >= least else {
                throw WorkbenchError("--seconds must be a number of at least \(least)")
            }
            seconds = number
        }
        if let text = values["--seed"] {
            guard let number = UInt64(text) else { throw WorkbenchError("--seed must be a number") }
            seed = number
        }
        if let directory = values["--state"] { parent = directory }
    }

    /// The exit status.
    private func run() throws -> Int32 {
        let place = try Workplace("tidegate-drill", under: parent)
        do {
            let drill = try Drill(self, place)
            let outcome = try drill.run()
            print(outcome.report)
            if outcome.failures.isEmpty || Interruption.happened {
                place.remove()
            } else {
                print("Logs, configuration and state are kept in \(place.path)")
            }
            if Interruption.happened { return 130 }
            return outcome.failures.isEmpty ? 0 : 1
        } catch {
            print("Logs, configuration and state are kept in \(place.path)")
            throw error
        }
    }
}
