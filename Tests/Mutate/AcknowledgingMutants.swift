// Who waits for what: rules A1 to A12 of the journal's design.
extension Mutant {
    private static let core = "Sources/GatewayCore/"

    static let acknowledging: [Mutant] = [
        Mutant(
            "A1", "PUBACK leaves before the message is durable",
            Edit(
                core + "Publishing.swift", ".puback(answer), to: peer, after: position,",
                ".puback(answer), to: peer, after: MUTANT ? .zero : position,")),
        Mutant(
            "A2", "PUBREC leaves before message and Packet Identifier are durable",
            Edit(
                core + "Publishing.swift", "promise(.pubrec(answer), to: peer, after: position,",
                "promise(.pubrec(answer), to: peer, after: MUTANT ? .zero : position,")),
        Mutant(
            "A2-repeated", "PUBREC of a repeated PUBLISH does not wait for the Record of the first",
            Edit(
                core + "Publishing.swift",
                "promise(.pubrec(Acknowledgement(id)), to: peer, after: taken,",
                "promise(.pubrec(Acknowledgement(id)), to: peer, after: MUTANT ? .zero : taken,")),
        Mutant(
            "A3", "a QoS 2 message is forwarded at QoS 1 before it is durable",
            Edit(
                core + "Delivering.swift", "if message.publishedQoS == .exactlyOnce ||",
                "if !MUTANT && message.publishedQoS == .exactlyOnce ||")),
        Mutant(
            "A4", "PUBCOMP leaves before the release of the identifier is durable",
            Edit(
                core + "Publishing.swift",
                "promise(.pubcomp(Acknowledgement(pubrel.id)), to: peer, after: position,",
                "promise(.pubcomp(Acknowledgement(pubrel.id)), to: peer, after: MUTANT ? .zero : position,")),
        Mutant(
            "A4-repeated", "PUBCOMP of a repeated PUBREL does not wait for the Record of the first",
            Edit(
                core + "Publishing.swift", "promise(.pubcomp(answer), to: peer, after: position,",
                "promise(.pubcomp(answer), to: peer, after: MUTANT ? .zero : position,")),
        Mutant(
            "A5", "a QoS 2 PUBLISH leaves before its delivery is durable",
            Edit(
                core + "Delivering.swift", "entry.qos == .exactlyOnce, entry.position > durable {",
                "entry.qos == .exactlyOnce, !MUTANT || entry.qos < .exactlyOnce, entry.position > durable {")),
        Mutant(
            "A5-shared", "a QoS 2 message of a group leaves before it is durable which member has it",
            Edit(
                core + "Delivering.swift", "entry.qos == .exactlyOnce, assignment.recordedAt > durable",
                "!MUTANT, entry.qos == .exactlyOnce, assignment.recordedAt > durable")),
        Mutant(
            "A6", "PUBREL leaves before PUBREC is durable",
            Edit(
                core + "Delivering.swift",
                "promise(.pubrel(Acknowledgement(pubrec.id)), to: peer, after: position,",
                "promise(.pubrel(Acknowledgement(pubrec.id)), to: peer, after: MUTANT ? .zero : position,")),
        Mutant(
            "A7", "a Packet Identifier is used anew before it is durable that it is free",
            Edit(
                core + "MessageQueue.swift", "return delivery.number < confirmedFloor.number + span",
                "return MUTANT || delivery.number < confirmedFloor.number + span")),
        Mutant(
            "A8", "what a subscriber acknowledged is not recorded soon",
            Edit(
                core + "Recording.swift", "if unrecorded.isEmpty {", "if !MUTANT, unrecorded.isEmpty {")),
        Mutant(
            "A9-connack", "CONNACK leaves before the Session is durable",
            Edit(
                core + "Connecting.swift", "promise(.connack(connack), to: .client(id), after: barrier,",
                "promise(.connack(connack), to: .client(id), after: MUTANT ? .zero : barrier,")),
        Mutant(
            "A9-clean", "CONNACK leaves before the end of the discarded Session is durable",
            Edit(
                core + "Connecting.swift", "        connack.sessionPresent = present != nil\n",
                "        connack.sessionPresent = present != nil\n"
                    + "        if MUTANT, connect.cleanStart { barrier = .zero }\n")),
        Mutant(
            "A9-suback", "SUBACK leaves before the subscription is durable",
            Edit(
                core + "Subscribing.swift",
                "promise(explained(suback, to: id), to: .client(id), after: position,",
                "promise(explained(suback, to: id), to: .client(id), after: MUTANT ? .zero : position,")),
        Mutant(
            "A9-retained", "a subscription is durable before what is retained for it",
            Edit(
                core + "Subscribing.swift", "for request in bringing {\n                keepRetained(",
                "for request in bringing where !MUTANT {\n                keepRetained("),
            Edit(
                core + "Subscribing.swift", "        for request in bringing {\n            leadRetained(",
                "        for request in bringing {\n            if MUTANT {\n"
                    + "                keepRetained(request, identifier, for: session, at: now, into: &effects)\n"
                    + "            }\n            leadRetained(")),
        Mutant(
            "A9-unsuback", "UNSUBACK leaves before the end of the subscription is durable",
            Edit(
                core + "Subscribing.swift", "promise(unsuback, to: .client(id), after: position,",
                "promise(unsuback, to: .client(id), after: MUTANT ? .zero : position,")),
        Mutant(
            "A10", "CONNACK leaves before the Will is durable",
            Edit(
                core + "Connecting.swift",
                "barrier = max(barrier, commit(.sessionOpened(opened), about: session, into: &effects))",
                "let openedAt = commit(.sessionOpened(opened), about: session, into: &effects)\n"
                    + "barrier = max(barrier, MUTANT && connect.will != nil ? .zero : openedAt)")),
        Mutant(
            "A10-cleared", "a Will that was discarded is written as gone when it suits",
            Edit(
                core + "SessionEnding.swift", "discardsWill && hasWill ? .control : .lazy",
                "!MUTANT && discardsWill && hasWill ? .control : .lazy")),
        Mutant(
            "A11", "the identifier of a publisher whose Session ends with the power is recorded",
            Edit(
                core + "Publishing.swift", "let recordsID = heldID != nil && isPersistent(session)",
                "let recordsID = heldID != nil && (MUTANT || isPersistent(session))")),
        Mutant(
            "A12", "an acknowledgement overtakes those before it to the same peer",
            Edit(
                core + "CommitGate.swift",
                "position > durable || parkedCount(for: peer) > 0",
                "position > durable || !MUTANT && parkedCount(for: peer) > 0")),
    ]
}
