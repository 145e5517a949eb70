/// A version of MQTT as its normative statements, each with a number of its own (its appendix B).
struct Specification {
    /// What a statement is cited with: `[MQTT5-4.3.2-4]`.
    let name: String
    let statements: [Statement]

    static let all = [mqtt311, mqtt5]

    /// - Parameter table: in each line a number, whom it binds, and what it asks.
    init(_ name: String, _ table: String) {
        self.name = name
        self.statements = table.split(separator: "\n").map { line in
            let parts = line.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: true)
            guard parts.count == 3, let side = Statement.Side(rawValue: String(parts[1])) else {
                preconditionFailure("no statement: \(line)")
            }
            let text = parts[2].drop { $0 == " " }
            return Statement(id: "\(name)-\(parts[0])", side: side, text: String(text))
        }
    }
}

/// One normative statement.
struct Statement {
    enum Side: String {
        case client, server
        /// Either each side does it, or a client must and a server refuses it otherwise.
        case both
    }

    /// With the version: `MQTT5-4.3.2-4`.
    let id: String
    let side: Side
    /// In our words.
    let text: String

    /// Whether a test must show it.
    var isOurs: Bool { side != .client }

    /// `MQTT5-4.3.2`.
    var section: String { String(id[..<(id.lastIndex(of: "-") ?? id.endIndex)]) }
}
