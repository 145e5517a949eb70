import MQTT

// What a client publishes, until it is answered.
extension SimulatedClient {
    mutating func takeName() -> MessageName {
        defer { nextNumber += 1 }
        return MessageName(plan.author, nextNumber)
    }

    /// One that nothing of its own uses [MQTT5-2.2.1-3].
    mutating func takeIdentifier() -> PacketIdentifier {
        if plan.publishing?.reusesIdentifiers == true { nextIdentifier = 1 }
        while true {
            let id = PacketIdentifier(rawValue: nextIdentifier) ?? 1
            // Few of them, used over and over.
            nextIdentifier = nextIdentifier % 97 + 1
            if !inFlight.contains(where: { $0.id == id }), !requests.contains(where: { $0.id == id }) {
                return id
            }
        }
    }

    mutating func makeMessages(at now: UInt64) {
        guard let publishing = plan.publishing else { return }
        for _ in 0..<(1 + dice.below(publishing.burst)) {
            let message = makeMessage(publishing)
            if message.publishing.qos == .atMostOnce {
                // Not ahead of what was made before it.
                if outbox.isEmpty { sendAtMostOnce(message, at: now) }
            } else if outbox.count < 100 {
                outbox.append(message)
            }
        }
        pump(at: now)
    }

    func qos(_ shares: [Int], _ roll: Int) -> QoS {
        roll < shares[0] ? .atMostOnce : roll < shares[0] + shares[1] ? .atLeastOnce : .exactlyOnce
    }

    mutating func makeMessage(_ publishing: ClientPlan.Publishing) -> Sent {
        let topic = publishing.topics[dice.below(publishing.topics.count)]
        let shares = publishing.qosShares
        let qos = qos(shares, dice.below(shares[0] + shares[1] + shares[2]))
        let retain = dice.below(100) < publishing.retainedPercent
        let isEmpty = retain && dice.below(100) < publishing.clearingPercent
        let expires = plan.version == .v5_0 && dice.below(100) < publishing.expiringPercent
        let padding = isEmpty ? 0 : dice.below(publishing.paddingMax + 1)
        return Sent(
            publishing: PeerEvent.Publishing(
                takeName(), topic: Array(topic.utf8), qos: qos, retain: retain, isEmpty: isEmpty,
                size: padding + 24, expirySeconds: expires ? publishing.expirySeconds : nil),
            padding: padding)
    }

    mutating func sendAtMostOnce(_ message: Sent, at now: UInt64) {
        send(.publish(packet(message)), at: now)
        note(.publishing(message.publishing))
    }

    /// Sends what may be sent: first again what was under way on an earlier connection, in order, then what is new.
    mutating func pump(at now: UInt64) {
        guard phase == .open else { return }
        let window = min(quota, plan.publishing?.window ?? 1)
        var count = inFlight.reduce(0) { $0 + ($1.sentOn == connection ? 1 : 0) }
        for i in inFlight.indices where inFlight[i].sentOn != connection {
            if inFlight[i].isReleased {
                guard let id = inFlight[i].id else { continue }
                send(.pubrel(Acknowledgement(id)), at: now)
            } else {
                guard count < window else { return }
                inFlight[i].publishing.duplicate = inFlight[i].sentOn > 0
                sendInFlight(i, at: now)
            }
            inFlight[i].sentOn = connection
            count += 1
        }
        while !outbox.isEmpty, count < window {
            var message = outbox.removeFirst()
            message.id = takeIdentifier()
            message.sentOn = connection
            inFlight.append(message)
            sendInFlight(inFlight.count - 1, at: now)
            count += 1
        }
    }

    mutating func sendInFlight(_ i: Int, at now: UInt64) {
        let message = inFlight[i]
        send(.publish(packet(message)), at: now)
        note(.publishing(message.publishing))
    }

    mutating func packet(_ message: Sent) -> Publish {
        let publishing = message.publishing
        let payload = publishing.isEmpty ? [] : publishing.name.payload(padding: message.padding)
        var publish = Publish(
            message: ApplicationMessage(topic: publishing.topic, payload: payload), qos: publishing.qos,
            id: message.id, retain: publishing.retain, duplicate: publishing.duplicate,
            messageExpirySeconds: publishing.expirySeconds)
        if aliasMaximum > 0 {
            if let place = aliasesOut.firstIndex(of: publishing.topic) {
                publish.topicAlias = UInt16(place + 1)
                publish.omitsTopicName = true
            } else if aliasesOut.count < aliasMaximum {
                aliasesOut.append(publishing.topic)
                publish.topicAlias = UInt16(aliasesOut.count)
            }
        }
        return publish
    }

    /// PUBACK, PUBREC or PUBCOMP.
    mutating func answered(_ packet: Packet, _ answer: Acknowledgement, at now: UInt64) {
        guard let i = inFlight.firstIndex(where: { $0.id == answer.id }), inFlight[i].sentOn == connection
        else {
            if !plan.isRude { note(.broken("\(packet) for nothing that is in flight")) }
            // What is PUBREC'd must be released, known or not [MQTT5-4.3.3-3].
            if case .pubrec = packet, !answer.reason.isError {
                send(.pubrel(Acknowledgement(answer.id, .packetIdentifierNotFound)), at: now)
            }
            return
        }
        let sent = inFlight[i]
        let name = sent.publishing.name
        switch packet {
        case .puback where sent.publishing.qos == .atLeastOnce:
            note(answer.reason.isError ? .denied(name, answer.reason) : .accepted(name))
            inFlight.remove(at: i)
        case .pubrec where sent.publishing.qos == .exactlyOnce && answer.reason.isError:
            if sent.isReleased { note(.broken("\(name) is refused after it was taken")) }
            note(.denied(name, answer.reason))
            inFlight.remove(at: i)
        case .pubrec where sent.publishing.qos == .exactlyOnce:
            if !sent.isReleased { note(.accepted(name)) }
            inFlight[i].isReleased = true
            send(.pubrel(Acknowledgement(answer.id)), at: now)
        case .pubcomp where sent.isReleased:
            inFlight.remove(at: i)
        default:
            if !plan.isRude { note(.broken("\(packet) does not answer \(name)")) }
        }
    }
}
