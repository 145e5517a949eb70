import GatewayCore

/// What a store costs the flash it is on, from what is left of it.
package struct StoreStatistics: Sendable {
    package let inspection: Inspection
    package let queues: [Waiting]
    /// Bytes that the flash can take in its life; nil when nobody said.
    package let enduranceBytes: UInt64?

    /// What waits for one receiver.
    package struct Waiting: Hashable, Sendable {
        package var owner: SessionOwner
        package var messages: Int
        /// Of their topics, properties and payloads.
        package var bytes: Int
    }

    package init(_ inspection: Inspection, _ state: DurableState, enduranceBytes: UInt64?) {
        self.inspection = inspection
        self.enduranceBytes = enduranceBytes
        queues = state.sessionIDs.compactMap { id in
            guard let session = state[id], session.isPersistent else { return nil }
            return Waiting(
                owner: session.owner, messages: session.queue.waitingCount, bytes: session.queue.waitingBytes)
        }
    }

    /// Handed to the disk for what is left in the files.
    package var deviceBytes: Int {
        let bytes = inspection.bytes
        return bytes.segmentHeaders + bytes.batchHeaders + bytes.records + bytes.padding + bytes.footers
            + bytes.checkpoints
    }

    /// For each message Record; nil when there is none.
    package var deviceBytesPerMessage: Double? {
        ratio(Double(deviceBytes), Double(inspection.records.messages))
    }

    /// For each byte of payload; nil when there is none.
    package var amplification: Double? { ratio(Double(deviceBytes), Double(inspection.records.payloadBytes)) }

    /// Of the gateway's clock; nil when it is less than a second.
    private var days: Double? {
        guard let span = inspection.span else { return nil }
        let milliseconds = span.last.milliseconds(since: span.first)
        return milliseconds >= 1000 ? Double(milliseconds) / 86_400_000 : nil
    }

    /// At the rate of what is left.
    package var commitsPerDay: Double? { ratio(Double(inspection.commits), days) }
    package var deviceBytesPerDay: Double? {
        ratio(Double(wear.bytes), wornDays) ?? ratio(Double(deviceBytes), days)
    }

    /// Until the flash has taken what it can, at this rate.
    package var lifeDays: Double? {
        guard let enduranceBytes else { return nil }
        return ratio(Double(enduranceBytes), deviceBytesPerDay)
    }

    /// Since the journal began to count: bytes handed to the disk for each day, message and payload byte.
    package var wear: Wear { inspection.log.wear }
    package var wornBytesPerMessage: Double? { ratio(Double(wear.bytes), Double(wear.messages)) }
    package var wornAmplification: Double? { ratio(Double(wear.bytes), Double(wear.payloadBytes)) }
    private var wornDays: Double? {
        guard let since = wear.since else { return nil }
        let milliseconds = inspection.log.clock.milliseconds(since: since)
        return milliseconds >= 1000 ? Double(milliseconds) / 86_400_000 : nil
    }

    private func ratio(_ a: Double, _ b: Double?) -> Double? {
        guard let b, b > 0 else { return nil }
        return a / b
    }
}

// MARK: For machines

extension StoreStatistics {
    /// One JSON object. Numbers that are not known are null.
    package var json: String {
        let bytes = inspection.bytes
        let kinds = inspection.records.kinds.sorted { $0.key < $1.key }.map {
            "\"\($0.key)\": {\"count\": \($0.value.count), \"bytes\": \($0.value.bytes)}"
        }
        let queues = queues.map {
            "{\"queue\": \($0.owner.text.json), \"waiting\": \($0.messages), \"bytes\": \($0.bytes)}"
        }
        let fields: [(String, String)] = [
            ("files", "\(inspection.files.count)"),
            (
                "bytes",
                "{\"total\": \(bytes.total), \"segmentHeaders\": \(bytes.segmentHeaders), "
                    + "\"batchHeaders\": \(bytes.batchHeaders), \"records\": \(bytes.records), "
                    + "\"padding\": \(bytes.padding), \"footers\": \(bytes.footers), "
                    + "\"otherInSegments\": \(bytes.otherInSegments), \"checkpoints\": \(bytes.checkpoints), "
                    + "\"otherFiles\": \(bytes.otherFiles)}"
            ),
            ("records", "{" + kinds.joined(separator: ", ") + "}"),
            ("queues", "[" + queues.joined(separator: ", ") + "]"),
            ("messages", "\(inspection.records.messages)"),
            ("messageBytes", "\(inspection.records.messageBytes)"),
            ("payloadBytes", "\(inspection.records.payloadBytes)"),
            ("commits", "\(inspection.commits)"),
            ("deviceBytes", "\(deviceBytes)"),
            ("deviceBytesPerMessage", deviceBytesPerMessage.json),
            ("amplification", amplification.json),
            ("commitsPerDay", commitsPerDay.json),
            ("deviceBytesPerDay", deviceBytesPerDay.json),
            (
                "overLife",
                "{\"bytes\": \(wear.bytes), \"commits\": \(wear.commits), \"messages\": \(wear.messages), "
                    + "\"payloadBytes\": \(wear.payloadBytes), \"bytesPerMessage\": \(wornBytesPerMessage.json), "
                    + "\"amplification\": \(wornAmplification.json)}"
            ),
            ("lifeDays", lifeDays.json),
            ("isWhole", "\(inspection.isWhole)"),
        ]
        return "{\n" + fields.map { "  \"\($0.0)\": \($0.1)" }.joined(separator: ",\n") + "\n}"
    }
}

extension Double? {
    fileprivate var json: String { map { "\($0)" } ?? "null" }
}

extension String {
    fileprivate var json: String {
        var text = "\""
        for scalar in unicodeScalars {
            switch scalar {
            case "\"", "\\": text += "\\" + String(scalar)
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text + "\""
    }
}
