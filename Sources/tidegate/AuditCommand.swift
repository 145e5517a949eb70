import ArgumentParser
import Disk
import GatewayCore
import Journal
import Settings

/// `tidegate audit`: whether every message that was accepted is accounted for (promise P3).
struct AuditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "audit",
        abstract: "Recomputes from the files what became of every message, and says whether it balances.",
        discussion: """
            For each queue, received and taken over from another queue is delivered, queued, expired, dropped or handed \
            over to another queue. The numbers are recomputed without the code that keeps queues, from what the newest \
            checkpoint says and from every record behind it; what was settled before that checkpoint may be gone from the \
            files and is taken from it. Every message that waits is looked for in the segments, but for those that came \
            from a shared subscription, which are only counted. It changes nothing and may be used while the gateway runs. \
            The exit status is 0 when everything balances, and 1 when not.
            """)

    @OptionGroup var store: StoreOptions

    func run() throws {
        let settings = try store.settings()
        let (result, lost) = try looking { () throws(StoreError) in
            try ReadOnlyStore.look(at: settings.state) { (reader) throws(RecoveryError) in
                var state = DurableState()
                var audit = Audit()
                let inspection = try Inspection.inspect(
                    &reader,
                    recovered: { record, position in
                        state.apply(record, at: position)
                        audit.recovered(record)
                    }, found: { audit.inLog($0.record) })
                return (audit.result(state), inspection.log.report.lost)
            }
        }
        for line in result.table { print(line) }
        for range in lost {
            print(
                "records \(range.lowerBound) to \(range.upperBound) are lost: a message among them is counted as soon as a "
                    + "later one of its queue shows that it was there")
        }
        print(result.isEven ? "balanced" : "not balanced")
        if !result.isEven { throw ExitCode(ExitStatus.failed.rawValue) }
    }
}

extension Audit.Result {
    fileprivate var table: [String] {
        let names = [
            "received", "taken over", "delivered", "queued", "expired", "dropped", "handed over",
        ]
        var rows = lines.map { ($0.owner.text, $0.books, $0.queued, $0.isEven) }
        rows.append(
            ("sessions that ended", ended, 0, ended == recomputedEnded && ended.balance(withQueued: 0)))
        rows.append(("total", total.books, total.queued, total.isEven))
        let width = rows.reduce(0) { max($0, $1.0.count) } + 2
        var text = ["".padded(to: width) + names.map { $0.columned }.joined()]
        for (name, books, queued, isEven) in rows {
            let numbers = [
                books.received, books.takenOver, books.delivered, queued, books.expired,
                books.droppedUnexpired,
                books.handedOver,
            ]
            text.append(
                name.padded(to: width) + numbers.map { "\($0)".columned }.joined()
                    + (isEven ? "" : "  does not balance"))
        }
        for line in lines where !line.isEven { text += line.differences }
        for (reason, count) in total.books.dropped where reason != .messageExpired {
            text.append("dropped, \(reason.text): \(count)")
        }
        return text
    }
}

extension Audit.Line {
    /// What is wrong, in words.
    fileprivate var differences: [String] {
        var text: [String] = []
        if queued != recomputedQueued {
            text.append("\(owner.text): \(queued) are queued, and the records say \(recomputedQueued)")
        }
        if books != recomputed {
            text.append(
                "\(owner.text): the records say received \(recomputed.received), delivered \(recomputed.delivered), "
                    + "dropped \(recomputed.droppedUnexpired), expired \(recomputed.expired)")
        }
        if missing > 0 { text.append("\(owner.text): \(missing) of those queued cannot be read any more") }
        return text
    }
}

extension DropReason {
    fileprivate var text: String {
        switch self {
        case .messageExpired: "expired"
        case .refusedByReceiver: "the receiver refused them"
        case .tooLarge: "too large for the receiver"
        case .damaged: "the bytes on disk were damaged"
        case .queueFull: "the queue was full"
        case .sessionEnded: "their session ended"
        case .noRoute: "no route asked for them"
        case .largerThanTaken: "larger than packet-size allows"
        case .purged: "the operator said so"
        case .loop: "sent by this gateway, and come back another way"
        case .notAllowed: "their receiver's device profile does not allow them any more"
        }
    }
}

extension String {
    fileprivate var columned: String { String(repeating: " ", count: max(1, 13 - count)) + self }
}
