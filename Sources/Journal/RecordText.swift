import GatewayCore
import MQTT

// Records as a person reads them: one a line, for `tidegate journal dump`.

extension Record {
    /// What it is called in tables.
    package var kindName: String {
        switch self {
        case .sessionOpened: "session opened"
        case .sessionClosed: "session closed"
        case .sessionEnded: "session ended"
        case .subscribed: "subscribed"
        case .unsubscribed: "unsubscribed"
        case .message: "message"
        case .inboundReleased: "inbound released"
        case .inboundVoided: "inbound voided"
        case .outboundReceived: "outbound received"
        case .acknowledged: "acknowledged"
        case .dropped: "dropped"
        case .uplinkEstablished: "uplink established"
        case .assigned: "assigned"
        case .returned: "returned"
        case .wasOff: "was off"
        case .profiled: "profiled"
        case .counters: "counters"
        case .retained: "retained"
        case .inboundHeld: "inbound held"
        case .queue: "queue"
        case .books: "books"
        case .lost: "lost"
        }
    }

    /// Its kind and what it says.
    ///
    /// - Parameter payload: whether the payloads of messages are shown; else only how long they are.
    package func line(payload: Bool) -> String {
        let details = details(payload: payload)
        return details.isEmpty ? kindName : kindName + " " + details
    }

    private func details(payload: Bool) -> String {
        switch self {
        case .sessionOpened(let opened):
            let expiry =
                opened.expirySeconds == .max ? "never expires" : "expires after \(opened.expirySeconds) s"
            let kept = opened.isPersistent ? "" : ", keeps nothing"
            return "\(opened.session.text) \(opened.owner.text), \(expiry)\(kept)"
                + (opened.will == nil ? "" : ", with a Will")
        case .sessionClosed(let closed): return "\(closed.session.text) at \(closed.at.milliseconds) ms"
        case .sessionEnded(let id, let end): return "\(id.text) \(end)"
        case .subscribed(let id, let subscriptions):
            let list = subscriptions.map { "\($0.filter.text.quoted) at QoS \($0.maximumQoS.rawValue)" }
            return "\(id.text) \(list.joined(separator: ", "))"
        case .unsubscribed(let id, let filters):
            return "\(id.text) \(filters.map(\.text.quoted).joined(separator: ", "))"
        case .message(let message): return message.text(payload: payload)
        case .inboundReleased(let id, let packet): return "\(id.text) packet \(packet.rawValue)"
        case .inboundVoided(let id), .uplinkEstablished(let id): return id.text
        case .outboundReceived(let id, let delivery): return "\(id.text) delivery \(delivery.number)"
        case .acknowledged(let settled):
            let above = settled.settledAbove.isEmpty ? "" : " and \(settled.settledAbove.text)"
            return "\(settled.session.text) all below \(settled.floor.number)\(above)"
        case .dropped(let id, let deliveries, let reason): return "\(id.text) \(deliveries.text): \(reason)"
        case .assigned(let assigned):
            return "delivery \(assigned.delivery.number) of \(assigned.group.text) to \(assigned.member.text)"
        case .returned(let id, let deliveries): return "\(id.text) \(deliveries.text)"
        case .wasOff(let off): return "\(off.milliseconds) ms after \(off.after.number)"
        case .profiled(let id, let name): return "\(id.text) \(name.quoted)"
        case .counters(let next): return "next session \(next)"
        case .retained(let retained): return retained.message.text(payload: payload)
        case .inboundHeld(let id, let packets):
            return "\(id.text) packets \(packets.map { "\($0.id.rawValue)" }.joined(separator: ", "))"
        case .queue(let queue):
            return "\(queue.session.text) from \(queue.floor.number): \(queue.entries.count) entries, "
                + "\(queue.pages.count) pages, \(queue.tail.count) behind them"
        case .books(let id, let books):
            return
                "\(id?.text ?? "of ended sessions"): received \(books.received), delivered \(books.delivered)"
        case .lost(let position, let count): return "\(count) through \(position.number)"
        }
    }
}

extension MessageRecord {
    fileprivate func text(payload: Bool) -> String {
        var parts = ["QoS \(qos.rawValue)", message.text(payload: payload)]
        if let publisher { parts.append("from \(publisher.text)") }
        if let inboundID { parts.append("packet \(inboundID.rawValue)") }
        if let willOf { parts.append("the Will of \(willOf.text)") }
        switch retained {
        case .none: break
        case .store: parts.append("retained")
        case .clear: parts.append("clears what is retained")
        }
        if let expiresAt { parts.append("expires at \(expiresAt.milliseconds) ms") }
        if let received { parts.append("received at \(received.at.milliseconds) ms") }
        if let moved {
            parts.append("moved from \(moved.from.text) as \(moved.delivery.number)")
            if let refusal = moved.refusal {
                parts.append("refused with 0x\(String(refusal.reason.rawValue, radix: 16, uppercase: true))")
            }
        }
        for target in targets {
            let delivery = target.delivery.map { " as \($0.number)" } ?? ""
            parts.append("to \(target.session.text)\(delivery)")
        }
        return parts.joined(separator: " ")
    }
}

extension ApplicationMessage {
    fileprivate func text(payload shows: Bool) -> String {
        let topic = String(decoding: topic, as: UTF8.self).quoted
        return shows ? "\(topic) \(payload.text)" : "\(topic) \(payload.count) bytes"
    }
}

extension [Delivery] {
    fileprivate var text: String { "deliveries " + map { "\($0.number)" }.joined(separator: ", ") }
}

extension SessionID {
    package var text: String { "session \(number)" }
}

extension SessionOwner {
    package var text: String {
        switch self {
        case .client(let identifier): "client \(identifier.quoted)"
        case .uplink(let name): "uplink \(name.quoted)"
        case .lane(let name, _, let label): "uplink \(name.quoted), \(label)"
        case .deadLetters(let name): "dead letters of uplink \(name.quoted)"
        case .group(let filter): "group \(filter.text.quoted)"
        }
    }
}

extension TopicFilter {
    fileprivate var text: String { String(decoding: bytes, as: UTF8.self) }
}

extension String {
    /// In quotes, with what would spoil a line or a terminal written as its number.
    fileprivate var quoted: String {
        var text = "\""
        for scalar in unicodeScalars {
            switch scalar {
            case "\"", "\\": text += "\\" + String(scalar)
            case _ where scalar.value < 0x20 || (0x7F..<0xA0).contains(scalar.value):
                text += "\\u{" + String(scalar.value, radix: 16) + "}"
            default: text.unicodeScalars.append(scalar)
            }
        }
        return text + "\""
    }
}

extension Collection<UInt8> {
    /// Text where it is text, else hexadecimal.
    fileprivate var text: String {
        if let text = String(validating: self, as: UTF8.self) { return text.quoted }
        return reduce(into: "0x") { $0 += ($1 < 16 ? "0" : "") + String($1, radix: 16) }
    }
}
