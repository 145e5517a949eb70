import GatewayCore
import MQTT

/// A message that an uplink's cloud refused, as the files have it. A gateway may be running on the store meanwhile:
/// what it did in the last seconds may be missing.
package struct DeadLetter: Hashable, Sendable {
    package var uplink: String
    /// Its number among the dead letters of its uplink, for as long as it is one.
    package var number: UInt64
    /// As it was published here, and as the cloud was to get it.
    package var topic: [UInt8]
    package var cloudTopic: [UInt8]
    package var qos: QoS
    /// Topic, properties and payload.
    package var bytes: Int
    /// What the cloud answered; 0x95 when it said beforehand that it takes nothing so large.
    package var reason: ReasonCode
    /// When it was refused, by the gateway's own clock.
    package var clock: Instant
    /// The same by the wall clock, in milliseconds since 1970; nil where nothing proves it.
    package var wallMilliseconds: Int64?

    /// All of one uplink, or of all uplinks, each uplink's in rising order.
    ///
    /// - Complexity: O(bytes of the store)
    package static func list(
        _ reader: inout some StoreReader, uplink: String? = nil
    ) throws(RecoveryError) -> [DeadLetter] {
        var letters: [DeadLetter] = []
        try walk(&reader, uplink) { letter, _ in
            letters.append(letter)
        } log: { log, state in
            for i in letters.indices {
                letters[i].wallMilliseconds = letters[i].dated(by: log.anchor, unproven: log.unproven, state)
            }
        }
        return letters.sorted { ($0.uplink, $0.number) < ($1.uplink, $1.number) }
    }

    /// One with its message; nil when there is none with that number, or no longer.
    ///
    /// - Complexity: O(bytes of the store)
    package static func find(
        _ number: UInt64, uplink: String, _ reader: inout some StoreReader
    ) throws(RecoveryError) -> (letter: DeadLetter, message: ApplicationMessage)? {
        var found: (letter: DeadLetter, message: ApplicationMessage)?
        try walk(&reader, uplink) { letter, message in
            if letter.number == number { found = (letter, message) }
        } log: { log, state in
            let wall = found?.letter.dated(by: log.anchor, unproven: log.unproven, state) ?? nil
            found?.letter.wallMilliseconds = wall
        }
        return found
    }

    private static func walk(
        _ reader: inout some StoreReader, _ uplink: String?, _ body: (DeadLetter, ApplicationMessage) -> Void,
        log: (RecoveredLog, borrowing DurableState) -> Void
    ) throws(RecoveryError) {
        var state = DurableState()
        let inspection = try Inspection.inspect(&reader) {
            state.apply($0, at: $1)
        } found: { found in
            guard case .message(let record) = found.record, let refusal = record.moved?.refusal else {
                return
            }
            for target in record.targets {
                guard let delivery = target.delivery, state.needs(target.session, delivery),
                    case .deadLetters(let name) = state[target.session]?.owner, uplink ?? name == name
                else { continue }
                let topic = record.message.topic
                body(
                    DeadLetter(
                        uplink: name, number: delivery.number, topic: Array(topic),
                        cloudTopic: target.rename?.applied(to: topic) ?? Array(topic), qos: target.qos,
                        bytes: record.message.bytes.count, reason: refusal.reason, clock: refusal.at,
                        wallMilliseconds: nil), record.message)
            }
        }
        log(inspection.log, state)
    }

    /// When it was refused by the wall clock, as far as that follows from when the wall clock was last believed.
    func dated(by anchor: WallAnchor?, unproven: UnprovenStart?, _ state: borrowing DurableState) -> Int64? {
        guard let anchor else { return nil }
        let distance = Int128(anchor.clock.milliseconds) - Int128(clock.milliseconds)
        if distance < 0, let unproven, unproven.since < clock { return nil }
        let off = distance < 0 ? 0 : state.offMilliseconds(since: clock)
        return Int64(clamping: Int128(anchor.wallMilliseconds) - distance - Int128(off))
    }
}
