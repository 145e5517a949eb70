import MQTT

/// What the wall clock said, for messages that tell when they were received.
struct WallClock {
    /// Since 1970.
    var milliseconds: Int64
    /// The gateway's clock at that moment.
    var at: Instant

    /// What the wall clock said when a message came: the time it has waited is counted by the gateway's own clock, and
    /// by what is proven of the time it was off.
    ///
    /// - Parameter position: of the message's Record.
    func moment(
        of received: MessageRecord.Received, position: Position, _ offTimes: OffTimes, at now: Instant
    ) -> Int64 {
        let off = offTimes.milliseconds(since: received.by == .zero ? position : received.by)
        let waited = Int128(now.milliseconds) - Int128(received.at.milliseconds) + Int128(off)
        return Int64(clamping: Int128(milliseconds) + Int128(now.milliseconds(since: at)) - waited)
    }
}

// User Properties that say where a message comes from, which one it is, and when it came [MQTT5-3.3.2.3.7]: with them
// the cloud can tell a live value from one of yesterday, and whether any is missing.
extension StoredMessage {
    /// The message with its provenance. A resend says the same: the number is the delivery's.
    ///
    /// - Parameters:
    ///   - owner: whose queue it is in.
    ///   - delivery: its number there; nil at QoS 0, of which none is counted.
    ///   - position: of its Record; `.zero` when it has none.
    ///   - wall: nil while the wall clock is not believed (promise P9).
    /// - Complexity: O(bytes)
    func stamped(
        _ provenance: UplinkRoutes.Provenance, by owner: SessionOwner, delivery: Delivery?,
        at position: Position, wall: WallClock?, _ offTimes: OffTimes, at now: Instant
    ) -> StoredMessage {
        var properties: [UserProperty] = []
        if provenance.addsGateway { properties.append(UserProperty("gateway", provenance.gateway.clamped)) }
        if provenance.addsSequence, let delivery {
            properties.append(UserProperty("seq", "\(delivery.sequence)"))
            if case .lane(_, _, let label) = owner { properties.append(UserProperty("lane", label.clamped)) }
        }
        if provenance.addsReceivedAt, let received, let wall {
            let moment = wall.moment(of: received, position: position, offTimes, at: now)
            properties.append(UserProperty("received-at", UTC.text(moment)))
        }
        guard !properties.isEmpty else { return self }
        var stamped = self
        stamped.message = ApplicationMessage(
            topic: message.topic,
            properties: message.properties + ForwardedProperties(userProperties: properties).bytes,
            payload: message.payload)
        return stamped
    }
}

extension Gateway {
    /// Whether the cloud of any of these receivers is told when the message came.
    func tellsWhen(_ targets: [MessageRecord.Target]) -> Bool {
        guard plan.uplinks.contains(where: { $0.provenance?.addsReceivedAt == true }) else { return false }
        return targets.contains { target in
            guard let name = read(target.session, { $0.owner.uplinkName }) ?? nil else { return false }
            return plan.uplinks.contains { $0.name == name && $0.provenance?.addsReceivedAt == true }
        }
    }

    /// Whether a message from a cloud says that this gateway sent it, through whatever uplink.
    ///
    /// - Complexity: O(bytes of its properties)
    func isOwn(_ message: ApplicationMessage) -> Bool {
        guard !message.properties.isEmpty,
            plan.uplinks.contains(where: { $0.provenance?.addsGateway == true })
        else { return false }
        return message.forwardedProperties.contains { property in
            guard case .userProperty(let name, let value) = property, name.elementsEqual("gateway".utf8)
            else {
                return false
            }
            return plan.uplinks.contains { uplink in
                uplink.provenance.map { $0.addsGateway && value.elementsEqual($0.gateway.utf8) } ?? false
            }
        }
    }
}

extension String {
    /// No longer than a string of MQTT may be [MQTT5-1.5.4].
    fileprivate var clamped: String {
        utf8.count <= Int(UInt16.max)
            ? self : String(decoding: utf8.prefix(Int(UInt16.max) - 3), as: UTF8.self)
    }
}

/// A moment as RFC 3339 writes it.
package enum UTC {
    /// With milliseconds: `2026-11-23T07:15:00.250Z`.
    ///
    /// - Parameter milliseconds: since 1970.
    package static func text(_ milliseconds: Int64) -> String {
        let (days, rest) = milliseconds.dividedDown(by: 86_400_000)
        let (year, month, day) = date(days)
        let parts = [
            padded(year, 4), "-", padded(month, 2), "-", padded(day, 2), "T", padded(rest / 3_600_000, 2),
            ":",
            padded(rest / 60_000 % 60, 2), ":", padded(rest / 1000 % 60, 2), ".", padded(rest % 1000, 3), "Z",
        ]
        return parts.joined()
    }

    /// The Gregorian date so many days after 1970-01-01. Years are counted from March, so that a leap day is the last
    /// of its year.
    private static func date(_ days: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let (era, dayOfEra) = (days + 719_468).dividedDown(by: 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let month = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * month + 2) / 5 + 1
        return (
            yearOfEra + era * 400 + (month < 10 ? 0 : 1), month < 10 ? month + 3 : month - 9, day
        )
    }

    private static func padded(_ number: Int64, _ digits: Int) -> String {
        let text = "\(number)"
        return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
}

extension Int64 {
    /// Rounded towards the past, so that the rest is never negative.
    fileprivate func dividedDown(by divisor: Int64) -> (quotient: Int64, rest: Int64) {
        let (quotient, rest) = quotientAndRemainder(dividingBy: divisor)
        return rest < 0 ? (quotient - 1, rest + divisor) : (quotient, rest)
    }
}
