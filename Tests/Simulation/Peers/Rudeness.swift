import MQTT

// What a rude client does now and then, beside what all clients do.
extension SimulatedClient {
    mutating func beRude(at now: UInt64) {
        guard phase == .open, !plan.manners.isEmpty else { return }
        switch plan.manners[dice.below(plan.manners.count)] {
        case .wrongIdentifiers: answerNothing(at: now)
        case .repeats: sayAgain(at: now)
        case .reusesIdentifiers: publishUnderOneIdentifier(at: now)
        case .floods: flood(at: now)
        case .garbage:
            output += (0..<(1 + dice.below(40))).map { _ in UInt8(truncatingIfNeeded: dice.next()) }
        case .halfPackets:
            let publish = Publish(
                message: ApplicationMessage(topic: Array("rude/half".utf8), payload: [1, 2, 3, 4, 5]))
            var bytes: [UInt8] = []
            Packet.publish(publish).encode(version: plan.version, into: &bytes)
            output += bytes.prefix(1 + dice.below(bytes.count - 1))
            close(at: now)
        case .readsNothing:
            readsNothing(until: now + about(3_000_000))
        }
    }

    private mutating func answerNothing(at now: UInt64) {
        for _ in 0..<(1 + dice.below(4)) {
            let id = PacketIdentifier(rawValue: UInt16(1 + dice.below(65_535))) ?? 1
            let answer = Acknowledgement(id)
            switch dice.below(4) {
            case 0: send(.puback(answer), at: now)
            case 1: send(.pubrec(answer), at: now)
            case 2: send(.pubrel(answer), at: now)
            default: send(.pubcomp(answer), at: now)
            }
        }
    }

    /// On the same connection, which MQTT 5 forbids [MQTT5-4.4.0-1].
    private mutating func sayAgain(at now: UInt64) {
        for i in inFlight.indices where inFlight[i].sentOn == connection {
            if inFlight[i].isReleased {
                if let id = inFlight[i].id { send(.pubrel(Acknowledgement(id)), at: now) }
            } else {
                inFlight[i].publishing.duplicate = dice.coin()
                sendInFlight(i, at: now)
            }
        }
    }

    private mutating func publishUnderOneIdentifier(at now: UInt64) {
        guard let publishing = plan.publishing else { return }
        for _ in 0..<(1 + dice.below(4)) { publish(makeMessage(publishing), under: 98, at: now) }
    }

    /// Far beyond any Receive Maximum [MQTT5-3.3.4-7].
    private mutating func flood(at now: UInt64) {
        guard let publishing = plan.publishing else { return }
        for i in 0..<(50 + dice.below(200)) {
            publish(makeMessage(publishing), under: UInt16(1000 + i), at: now)
        }
    }

    private mutating func publish(_ message: Sent, under id: UInt16, at now: UInt64) {
        var message = message
        message.id = message.publishing.qos == .atMostOnce ? nil : PacketIdentifier(rawValue: id)
        send(.publish(packet(message)), at: now)
        note(.publishing(message.publishing))
    }
}
