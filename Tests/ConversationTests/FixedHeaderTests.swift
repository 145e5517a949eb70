import MQTT
import Testing
import Workbench

/// Every packet type with every combination of flags, as the first packet and as a later one, in each version.
@Suite("2.1 The fixed header")
struct FixedHeaderTests {
    @Test(
        "[MQTT5-2.1.3-1, MQTT5-3.6.1-1, MQTT5-3.8.1-1, MQTT5-3.10.1-1, MQTT5-3.14.1-1, MQTT5-3.15.1-1] [MQTT311-2.2.2-1, MQTT311-2.2.2-2, MQTT311-3.6.1-1, MQTT311-3.8.1-1, MQTT311-3.10.1-1, MQTT311-3.14.1-1] [MQTT5-3.3.1-2, MQTT311-3.3.1-2, MQTT5-3.3.1-4, MQTT311-3.3.1-4] Other flags than those of the packet type close",
        arguments: allVersions, UInt8(0)...15)
    func laterPackets(version: ProtocolVersion, type: UInt8) throws {
        for flags in UInt8(0)...15 {
            let caller = try Caller.connected(version)
            let body = Self.wellFormedBody(type, qos: flags >> 1 & 0b11, caller)
            let response = try caller.response(to: raw(type << 4 | flags, body))
            let first = Comment(rawValue: "first byte \(String(type << 4 | flags, radix: 16))")
            switch Self.expected(type, flags, version) {
            case .open(let answer):
                #expect(response == .open(answer), first)
            case .closed:
                #expect(response == .closed([]), first)
            case .refused(let reasons):
                if version == .v5_0 {
                    let allowed = reasons.map { Response.refused($0, version) }
                    #expect(allowed.contains(response), first)
                } else {
                    #expect(response == .closed([]), first)
                }
            }
        }
    }

    @Test(
        "[MQTT5-3.1.0-1, MQTT311-3.1.0-1] [MQTT5-3.14.0-1] Whoever does not begin with CONNECT is closed without a word",
        arguments: UInt8(0)...15)
    func firstPacket(type: UInt8) throws {
        for flags in UInt8(0)...15 where type != 1 || flags != 0 {
            for version in allVersions {
                let caller = try Caller(version)
                let body =
                    type == 1
                    ? RawConnect(version).body : Self.wellFormedBody(type, qos: flags >> 1 & 0b11, caller)
                caller.send(raw(type << 4 | flags, body))
                #expect(try caller.untilClosed() == [], "first byte \(type << 4 | flags) of \(version)")
            }
        }
    }

    enum Expected {
        case open([Packet])
        case closed
        /// Any of these reasons in MQTT 5.
        case refused([ReasonCode])
    }

    private static func expected(_ type: UInt8, _ flags: UInt8, _ version: ProtocolVersion) -> Expected {
        // In MQTT 3.1 the DUP flag of these three means what it says (its sections 3.6, 3.8 and 3.10).
        let isMarked = flags == 0b0010 || version == .v3_1 && flags == 0b1010
        let malformed = Expected.refused([.malformedPacket])
        switch type {
        case 0: return malformed
        case 1, 2, 9, 11, 13:
            // A second CONNECT, or what only servers send; the wrong flags are as good a reason.
            return .refused(flags == 0 ? [.protocolError] : [.protocolError, .malformedPacket])
        case 3:
            if flags & 0b0110 == 0b0110 { return malformed }
            if flags & 0b1110 == 0b1000, version > .v3_1 { return malformed }
            switch flags >> 1 & 0b11 {
            case 0: return .open([])
            case 1: return .open([.puback(7, version == .v5_0 ? .noMatchingSubscribers : .success)])
            default: return .open([.pubrec(7, version == .v5_0 ? .noMatchingSubscribers : .success)])
            }
        case 4, 7: return flags == 0 ? .open([]) : malformed
        case 5:
            // A PUBREC that answers nothing is told so.
            return flags == 0
                ? .open([.pubrel(7, version == .v5_0 ? .packetIdentifierNotFound : .success)]) : malformed
        case 6:
            return isMarked
                ? .open([.pubcomp(7, version == .v5_0 ? .packetIdentifierNotFound : .success)]) : malformed
        case 8: return isMarked ? .open([.suback(Suback(id: 7, reasons: [.grantedQoS0]))]) : malformed
        case 10:
            let reasons: [ReasonCode] = version == .v5_0 ? [.noSubscriptionExisted] : []
            return isMarked ? .open([.unsuback(Unsuback(id: 7, reasons: reasons))]) : malformed
        case 12: return flags == 0 ? .open([]) : malformed
        case 14: return flags == 0 ? .closed : malformed
        // AUTH, where no Authentication Method was agreed on.
        default: return .refused(flags == 0 ? [.protocolError] : [.malformedPacket])
        }
    }

    /// A body that is right for the packet type, so that only flags can be wrong.
    private static func wellFormedBody(_ type: UInt8, qos: UInt8, _ caller: Caller) -> [UInt8] {
        let version = caller.version
        let id = u16(7)
        let topic = text(caller.name)
        let none = properties(version)
        return switch type {
        case 1: RawConnect(version) { $0.clientIdentifier = text(caller.name) }.body
        case 2: [0, 0] + none
        case 3: topic + (qos == 0 ? [] : id) + none
        case 4, 5, 6, 7: id
        case 8: id + none + topic + [0]
        case 9: id + none + [0]
        case 10: id + none + topic
        case 11: version == .v5_0 ? id + none + [0] : id
        case 15: [0x19, 4] + [0x15] + text("m")
        default: []
        }
    }
}
