import GatewayCore
import MQTT

// The far end of the uplink. What the cloud loses by itself, having said that it has it, is its own loss; whatever it
// never said that it has, the gateway still owes.
extension Oracle {
    mutating func cloudSaw(_ event: PeerEvent, at now: UInt64) {
        switch event {
        case .connecting: cloud.connection += 1
        case .received(let reception): arrived(reception, at: now)
        case .refused(let name):
            cloud.refused.insert(name)
            // Asked again after a power cut, it may take it after all; that is no disorder.
            cloud.everSeen.insert(name)
        case .swallowed(let name): cloud.lostByItself.insert(name)
        case .forgot:
            // What it had not said that it has comes again, and what it had, nobody knows any more.
            (cloud.copies, cloud.lastSeen) = ([:], [:])
        case .wentBack(let undone):
            (cloud.copies, cloud.lastSeen) = ([:], [:])
            for one in undone {
                cloud.arrived.remove(one.name)
                if one.wasAnswered { cloud.lostByItself.insert(one.name) }
            }
        case .mayRepeat(let names):
            for name in names { change(name) { $0.extraTakes += 1 } }
        case .disowned(let name):
            change(name) {
                $0.isOwed = false
                $0.isDisowned = true
            }
        case .connected, .turnedAway, .leaving, .lost, .publishing, .accepted, .denied, .abandoned,
            .subscribing,
            .subscribed, .unsubscribing, .unsubscribed, .broken:
            break
        }
    }

    /// A cloud that answers QoS 2 with PUBACK has no identifiers to know copies by.
    private var takesAtQoS1: Bool {
        rules.cloud.map { $0.acknowledgesQoS2AsQoS1 && $0.version < .v5_0 } ?? false
    }

    /// The topic and QoS at which a message of a client goes up; nil when no route carries it.
    func upwards(_ message: OracleMessage) -> (topic: [UInt8], qos: QoS)? {
        let topic = matching.topics[message.topic]
        guard message.author < rules.clients.count,
            let route = rules.out.first(where: { $0.carries(topic[...]) })
        else { return nil }
        return (route.rename?.applied(to: topic[...]) ?? topic, min(message.qos, route.maximumQoS))
    }

    private mutating func arrived(_ reception: PeerEvent.Reception, at now: UInt64) {
        guard let name = reception.name else { return }
        guard let i = place(of: name) else { return report("the cloud got \(name), which nobody published") }
        messages[i].isSeen = true
        let message = messages[i]
        guard let upwards = upwards(message) else {
            return report("the cloud got \(name), which no route carries")
        }
        if upwards.topic != reception.topic { report("the cloud got \(name) under another topic") }
        if reception.qos > upwards.qos {
            report("the cloud got \(name) at QoS \(reception.qos.rawValue), its route carries less")
        }
        if message.isForbidden {
            report("the cloud got \(name), the Will of who said goodbye [MQTT5-3.1.2-10]")
        }
        if reception.retain, !message.retain {
            report("the cloud got \(name) with RETAIN, and it never had that")
        }
        judgeExpiry(
            reception, message, "the cloud", speaksMQTT5: rules.cloud?.version == .v5_0, at: now)
        cloud.arrived.insert(name)
        // What it had before it forgot, and said so, may come again: the gateway need not have written that down yet.
        let isFirst = cloud.everSeen.insert(name).inserted
        // Nor has one that took it at QoS 1, because it takes no more on some connections.
        let isCapped = takesAtQoS1 || (cloud.copies[name].map { $0.count > $0.atQoS2 } ?? false)
        let takes = message.takesMax(powerCuts: powerCutCount(since: message.firstSent))
        var copies = cloud.copies[name] ?? .init()
        copies.note(reception, on: cloud.connection, at: now)
        cloud.copies[name] = copies
        judge(copies, message, atMost: takes, exactlyOnce: isCapped ? .max : takes, "the cloud")
        guard rules.isOrderedUpwards, isFirst, !message.isWill, !message.isDisowned,
            reception.qos > .atMostOnce,
            !isRude(message.author),
            // Of two copies the earlier may have expired.
            message.expirySeconds == nil || message.sends == 1
        else { return }
        let key = Self.orderKey(author: name.author, topic: message.topic, message.qos, reception.qos)
        if let last = cloud.lastSeen[key], last > name.number {
            report("the cloud got \(name) behind \(name.author)#\(last)")
        } else {
            cloud.lastSeen[key] = name.number
        }
    }
}
