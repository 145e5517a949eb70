import ArgumentParser
import Disk
import GatewayCore
import Glibc
import Journal
import Settings

/// `tidegate journal …`: looks at a store, and mends it.
struct JournalCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "journal",
        abstract: "Looks at the files that keep sessions and messages, and mends them.",
        discussion: """
            All but `repair` change nothing and may be used while the gateway runs.
            """,
        subcommands: [Verify.self, Stats.self, Dump.self, Repair.self])
}

/// Which store is meant.
struct StoreOptions: ParsableArguments {
    @Option(help: "The configuration file; /etc/tidegate/tidegate.yaml, if it is there.")
    var config: String?

    @Option(help: "The directory that keeps sessions and messages, whatever the file says.")
    var state: String?

    func settings() throws -> Settings {
        do throws(SettingsErrors) {
            var settings = try Settings.load(path: config)
            if let state { settings.state = state }
            return settings
        } catch {
            throw refuse(error)
        }
    }
}

/// Runs what may find that a store cannot be opened.
func looking<Result>(_ body: () throws(StoreError) -> Result) throws -> Result {
    do throws(StoreError) { return try body() } catch {
        complain("\(error)")
        throw ExitCode(ExitStatus.failed.rawValue)
    }
}

extension JournalCommand {
    struct Verify: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Reads every byte and says what is damaged, and where.",
            discussion: """
                The exit status is 0 when everything that was committed is there, and 1 when not. Damage that an earlier \
                start or a repair has dealt with stays in its file until nothing else in that is needed: where a copy of \
                it is in quarantine/, and a start would find nothing damaged, it is named, and the exit status is 0.
                """)

        @OptionGroup var store: StoreOptions

        func run() throws {
            let settings = try store.settings()
            var (inspection, missing) = try Self.inspected(settings.state)
            // A running gateway may have taken a segment away while its directory was read.
            if !missing.isEmpty { (inspection, missing) = try Self.inspected(settings.state) }
            print(inspection.summary(of: settings.state))
            let copies = try looking { () throws(StoreError) in
                try ReadOnlyStore.copies(of: inspection.damaged, at: settings.state)
            }
            for line in inspection.faults(copies) { print(line) }
            for stretch in missing {
                print(
                    "missing: records \(stretch.first.number) to \(stretch.last.number), for which somebody waits; "
                        + "their segment is gone")
            }
            // A start that finds nothing goes on from a checkpoint that has what is missing in its books.
            let isKnown =
                !inspection.log.report.isDamaged && inspection.damaged.allSatisfy { copies[$0] != nil }
            switch (inspection.isWhole && missing.isEmpty, isKnown && missing.isEmpty) {
            case (true, _): print("whole")
            case (false, true):
                print("damaged, as was known: it was put aside, and what was lost with it is in the books")
            case (false, false):
                print("damaged")
                throw ExitCode(ExitStatus.failed.rawValue)
            }
        }

        private static func inspected(_ path: String) throws -> (Inspection, missing: [Stretch]) {
            try looking { () throws(StoreError) in
                try ReadOnlyStore.look(at: path) { (reader) throws(RecoveryError) in
                    var state = DurableState()
                    let inspection = try Inspection.inspect(&reader, recovered: { state.apply($0, at: $1) })
                    return (inspection, inspection.missing(owedBy: state))
                }
            }
        }
    }

    struct Stats: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Counts what is in the files, and what it costs the flash.",
            discussion: """
                Rates are those of what is left in the files. With the endurance of the flash, here or as `endurance` in \
                the journal's settings, it is estimated how long that lasts.
                """)

        @OptionGroup var store: StoreOptions
        @Option(help: "What the flash can take in its life, as in \"8 TB\".") var endurance: String?
        @Flag(help: "Print JSON.") var json = false

        func run() throws {
            let settings = try store.settings()
            let endurance = try endurance.map { text in
                guard let bytes = JournalSettings.bytes(text) else {
                    throw ValidationError("--endurance is a size such as \"8 TB\", not \"\(text)\"")
                }
                return bytes
            }
            let statistics = try looking { () throws(StoreError) in
                try ReadOnlyStore.look(at: settings.state) { (reader) throws(RecoveryError) in
                    var state = DurableState()
                    let inspection = try Inspection.inspect(&reader, recovered: { state.apply($0, at: $1) })
                    return StoreStatistics(
                        inspection, state, enduranceBytes: endurance ?? settings.journal.enduranceBytes)
                }
            }
            print(json ? statistics.json : statistics.table)
        }
    }

    struct Dump: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Prints the records of the log, one a line.",
            discussion: """
                Each line begins with the record's position, and the file and offset of its batch. Payloads are only \
                counted, unless they are asked for.
                """)

        @OptionGroup var store: StoreOptions
        @Option(help: "The first position to print.") var from: UInt64 = 0
        @Option(help: "The last position to print.") var to: UInt64 = .max
        @Flag(help: "Print payloads too: as text where they are, else hexadecimal.") var payload = false

        func run() throws {
            let settings = try store.settings()
            // What was printed is not printed again when a file vanished meanwhile.
            var printed: UInt64 = 0
            _ = try looking { () throws(StoreError) in
                try ReadOnlyStore.look(at: settings.state) { (reader) throws(RecoveryError) in
                    try Inspection.inspect(
                        &reader,
                        found: { found in
                            let number = found.position.number
                            guard number >= from, number <= to, number > printed else { return }
                            printed = number
                            print(
                                "\(number) \(found.file)@\(found.offset) \(found.record.line(payload: payload))"
                            )
                        })
                }
            }
        }
    }

    struct Repair: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Puts aside what cannot be read, and writes down anew what can.",
            discussion: """
                The gateway must be stopped. Files that are not what their names say go to quarantine/, a damaged FORMAT \
                is written anew, and so is a checkpoint of all that was found, so that a start reads nothing damaged. \
                Nothing that can be read is lost: segments stay as long as a message in them is owed.
                """)

        @OptionGroup var store: StoreOptions

        func run() throws {
            let settings = try store.settings()
            let (opened, state) = try looking { () throws(StoreError) in
                try DiskStore.recover(
                    path: settings.state, mustExist: true, allowVolatile: settings.journal.allowsVolatile)
            }
            for warning in opened.warnings { complain(warning) }
            for line in opened.recovered.report.texts() { print(line) }
            var journal = Journal(plan: JournalPlan(settings.journal), recovered: opened.recovered)
            let disk = opened.inline()
            // The first attempt may have found no room, and made some.
            let refusal = Self.writeCheckpoint(of: state, &journal, disk).flatMap { _ in
                Self.writeCheckpoint(of: state, &journal, disk)
            }
            if let refusal {
                complain(
                    "cannot write a checkpoint into \(settings.state): \(refusal). What was there is as it was; "
                        + "make room, or see why the disk takes nothing, and repair it again.")
                throw ExitCode(ExitStatus.failed.rawValue)
            }
            let lost = opened.recovered.report.lost.reduce(0 as UInt64) { $0 + UInt64($1.count) }
            print(
                opened.recovered.report.isDamaged
                    ? "repaired: \(lost) records were lost, \(state.balance.queued) messages wait"
                    : "nothing was damaged; \(state.balance.queued) messages wait")
        }

        /// - Returns: why it could not be written; nil when it is durable.
        private static func writeCheckpoint(
            of state: DurableState, _ journal: inout Journal, _ disk: InlineDisk
        ) -> SystemError? {
            let now = journal.stampedAt
            // Until it is done.
            var refusal: SystemError? = SystemError(number: EIO)
            journal.beginCheckpoint(of: state, at: now)
            var operations: [DiskOperation] = []
            while true {
                journal.tick(at: now)
                journal.takeOperations(into: &operations)
                if operations.isEmpty { return refusal }
                for operation in operations {
                    let done = disk.carryOut(operation)
                    if operation.isOfCheckpoint {
                        if case .failed(let number) = done.outcome {
                            refusal = SystemError(number: number)
                        } else {
                            refusal = nil
                        }
                    }
                    journal.completed(done, at: now)
                }
                operations = []
            }
        }
    }
}

extension DiskOperation {
    fileprivate var isOfCheckpoint: Bool { if case .writeCheckpoint = action { true } else { false } }
}

// MARK: Lines

extension Inspection {
    fileprivate func summary(of path: String) -> String {
        let total = records.kinds.values.reduce(0) { $0 + $1.count }
        return "\(path): \(files.count) files, \(bytes.total) bytes, \(commits) commits, \(total) records"
    }

    /// - Parameter copies: of what was put aside.
    fileprivate func faults(_ copies: [RecoveryReport.ByteRange: String]) -> [String] {
        var report = log.report
        report.damaged = damaged
        return report.texts(copies)
    }
}

extension RecoveryReport {
    /// What was found, one a line.
    fileprivate func texts(_ copies: [ByteRange: String] = [:]) -> [String] {
        damaged.map { range in
            "damaged: \(range.file), bytes \(range.bytes.lowerBound) to \(range.bytes.upperBound)"
                + (copies[range].map { ", put aside as \($0)" } ?? "")
        }
            + lost.map { "lost: records \($0.lowerBound) to \($0.upperBound)" }
            + setAside.map { "unreadable: \($0)" } + (formatIsDamaged ? ["damaged: FORMAT"] : [])
            + tornTails.map {
                "unfinished write, as a power cut leaves it: \($0.file), bytes \($0.bytes.lowerBound) to "
                    + "\($0.bytes.upperBound)"
            }
            + unfinished.map { "unfinished file, as a power cut leaves it: \($0)" }
    }
}

extension StoreStatistics {
    fileprivate var table: String {
        let bytes = inspection.bytes
        var lines = [
            "files                    \(inspection.files.count)",
            "bytes                    \(bytes.total.size)",
            "  records                \(bytes.records.size)",
            "  batch headers          \(bytes.batchHeaders.size)",
            "  padding                \(bytes.padding.size)",
            "  segment headers        \(bytes.segmentHeaders.size)",
            "  footers                \(bytes.footers.size)",
            "  checkpoints            \(bytes.checkpoints.size)",
            "  unused in segments     \(bytes.otherInSegments.size)",
            "records",
        ]
        for (kind, count) in inspection.records.kinds.sorted(by: { $0.key < $1.key }) {
            lines.append("  \(kind.padded(to: 22)) \(count.count), \(count.bytes.size)")
        }
        lines.append("waiting")
        for queue in queues { lines.append("  \(queue.owner.text): \(queue.messages), \(queue.bytes.size)") }
        lines.append("commits                  \(inspection.commits)" + commitsPerDay.suffix(" a day"))
        lines.append(
            "device bytes             \(deviceBytes.size)" + deviceBytesPerDay.suffix(" bytes a day"))
        if let each = deviceBytesPerMessage { lines.append("  for each message       \(each.oneDigit)") }
        if let each = amplification { lines.append("  for each payload byte  \(each.twoDigits)") }
        if wear.commits > 0 {
            lines.append(
                "over its life            \(wear.commits) commits, \(Int(clamping: wear.bytes).size)")
            if let each = wornBytesPerMessage { lines.append("  for each message       \(each.oneDigit)") }
            if let each = wornAmplification { lines.append("  for each payload byte  \(each.twoDigits)") }
        }
        if let lifeDays {
            lines.append("estimated life           \((lifeDays / 365).oneDigit) years at this rate")
        }
        return lines.joined(separator: "\n")
    }
}

extension Int {
    fileprivate var size: String {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        guard let (name, unit) = units.first(where: { self >= $0.1 }) else { return "\(self) B" }
        return "\((Double(self) / Double(unit)).oneDigit) \(name)"
    }
}

extension Double? {
    fileprivate func suffix(_ unit: String) -> String { map { ", \($0.oneDigit)\(unit)" } ?? "" }
}

extension Double {
    fileprivate var oneDigit: String { digits(10) }
    fileprivate var twoDigits: String { digits(100) }

    private func digits(_ scale: Double) -> String {
        guard magnitude < 1e15 else { return "\(self)" }
        let rounded = (self * scale).rounded() / scale
        return rounded == rounded.rounded() ? "\(Int(rounded))" : "\(rounded)"
    }
}

extension String {
    func padded(to width: Int) -> String { self + String(repeating: " ", count: max(0, width - count)) }
}
