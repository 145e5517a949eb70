import Foundation
import Workbench

/// `bench --gateway PATH [--rows NAMES] [--backlog N] [--scratch DIR]`: speed, memory and wear of the shipped
/// binary, measured from outside. Each row prints what was asked for and what was found; the exit status is 1
/// when one misses its goal.
@main
struct BenchCommand {
    var gateway = ""
    var rows = ["lone", "ingest", "kills", "backlog", "flash", "silent", "drain", "profiles"]
    var backlog = 5_000_000
    var scratch = "/var/tmp"

    static let usage = """
        usage: bench --gateway PATH [--rows NAME,...] [--backlog N] [--scratch DIR]
          --gateway PATH  the tidegate binary to measure
          --rows NAMES    of lone, ingest, kills, backlog, flash, silent, drain, profiles; all when not given
          --backlog N     messages of the row `backlog`; 5000000 when not given
          --scratch DIR   a directory on a real disk for everything written; /var/tmp when not given

        """

    static func main() {
        do {
            let command = try BenchCommand(Array(CommandLine.arguments.dropFirst()))
            exit(try command.run() ? 0 : 1)
        } catch {
            FileHandle.standardError.write(Data("bench: \(error)\n".utf8))
            exit(error is UsageError ? 64 : 1)
        }
    }

    struct UsageError: Error, CustomStringConvertible {
        let text: String
        var description: String { "\(text)\n\(BenchCommand.usage)" }
    }

    init(_ arguments: [String]) throws {
        var rest = arguments[...]
        while let name = rest.popFirst() {
            guard let value = rest.popFirst() else { throw UsageError(text: "\(name) needs a value") }
            switch name {
            case "--gateway": gateway = value
            case "--scratch": scratch = value
            case "--rows":
                let names = value.split(separator: ",").map(String.init)
                if let unknown = names.first(where: { !rows.contains($0) }) {
                    throw UsageError(text: "there is no row \(unknown)")
                }
                rows = names
            case "--backlog":
                guard let number = Int(value), number >= 1000 else {
                    throw UsageError(text: "--backlog must be a number of at least 1000")
                }
                backlog = number
            default: throw UsageError(text: "unknown argument \(name)")
            }
        }
        guard access(gateway, X_OK) == 0 else {
            throw UsageError(text: "--gateway: \(gateway) is not there, or not executable")
        }
    }

    private func run() throws -> Bool {
        print("\(ProcessInfo.processInfo.processorCount) cores; written to \(scratch)")
        var missed = 0
        for row in rows {
            let place = try Workplace("tidegate-bench", under: scratch)
            defer { place.remove() }
            let result: Row =
                switch row {
                case "lone": try LoneSensor.measure(gateway, place)
                case "ingest": try Ingest.measure(gateway, place)
                case "kills": try Kills.measure(gateway, place)
                case "backlog": try Backlog.measure(gateway, place, messages: backlog)
                case "silent": try Silent.measure(gateway, place)
                case "drain": try Drain.measure(gateway, place)
                case "profiles": try Profiles.measure(gateway, place)
                default: try Flash.measure(gateway, place)
                }
            print(result.text, terminator: "")
            fflush(nil)
            missed += result.lines.count { $0.isMet == false }
        }
        print(missed == 0 ? "every goal met" : "\(missed) goals missed")
        return missed == 0
    }
}

/// What one row found.
struct Row {
    struct Line {
        let what: String
        let value: String
        let goal: String
        /// nil where there is no goal.
        let isMet: Bool?
    }

    let title: String
    private(set) var lines: [Line] = []

    init(_ title: String) { self.title = title }

    mutating func note(_ what: String, _ value: String) {
        lines.append(Line(what: what, value: value, goal: "", isMet: nil))
    }

    mutating func goal(
        _ what: String, _ value: Double, atMost goal: Double, digits: Int = 2, unit: String = ""
    ) {
        lines.append(
            Line(
                what: what, value: Self.number(value, digits) + unit,
                goal: "<= \(Self.number(goal, digits))\(unit)",
                isMet: value <= goal))
    }

    mutating func goal(
        _ what: String, _ value: Double, atLeast goal: Double, digits: Int = 0, unit: String = ""
    ) {
        lines.append(
            Line(
                what: what, value: Self.number(value, digits) + unit,
                goal: ">= \(Self.number(goal, digits))\(unit)",
                isMet: value >= goal))
    }

    var text: String {
        var text = "\n\(title)\n"
        for line in lines {
            let mark =
                switch line.isMet {
                case true?: "met   "
                case false?: "MISSED"
                case nil: "      "
                }
            text +=
                "  \(mark) \(line.what): \(line.value)\(line.goal.isEmpty ? "" : "  (goal \(line.goal))")\n"
        }
        return text
    }

    static func number(_ value: Double, _ digits: Int) -> String { String(format: "%.\(digits)f", value) }
}
