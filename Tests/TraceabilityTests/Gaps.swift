/// The statements that bind a server and that no test shows.
enum Gaps {
    /// To be shown; the list may only get shorter.
    static let notYet = ids("MQTT311", missing311).union(ids("MQTT5", missing5))

    /// What no test of ours can show, and why.
    static let cannotBe = reasons("MQTT311", impossible311).merging(reasons("MQTT5", impossible5)) { a, _ in a
    }

    private static func ids(_ version: String, _ table: String) -> Set<String> {
        Set(table.split(separator: "\n").map { "\(version)-\($0)" })
    }

    private static func reasons(_ version: String, _ table: String) -> [String: String] {
        var reasons: [String: String] = [:]
        for line in table.split(separator: "\n") {
            let parts = line.split(separator: " ", maxSplits: 1)
            reasons["\(version)-\(parts[0])"] = parts.count == 2 ? String(parts[1]) : ""
        }
        return reasons
    }

    private static let impossible311 = """
        3.2.2-6 there is always a Return Code: 3 stands for every reason that has none of its own
        3.8.3-2 binds servers without wildcards, and this one has them
        7.0.0-1 towards other servers libmosquitto is the client, which has tests of its own
        7.0.0-2 a rule about what is not needed; that unchanged clients of others work is tested
        """

    private static let impossible5 = """
        3.2.2-13 binds servers that retain nothing, and this one does
        3.2.2-20 this server puts no User Properties into CONNACK
        3.3.4-5 one copy is sent for all overlapping subscriptions, see 3.3.4-4
        3.4.2-3 this server puts no User Properties into PUBACK
        3.5.2-3 this server puts no User Properties into PUBREC
        3.6.2-2 this server puts no Reason String into PUBREL
        3.6.2-3 this server puts no User Properties into PUBREL
        3.7.2-2 this server puts no Reason String into PUBCOMP
        3.7.2-3 this server puts no User Properties into PUBCOMP
        3.9.2-2 this server puts no User Properties into SUBACK
        3.11.2-1 this server puts no Reason String into UNSUBACK
        3.11.2-2 this server puts no User Properties into UNSUBACK
        3.14.2-4 this server puts no User Properties into DISCONNECT
        3.15.2-2 every Authentication Method is refused, so that this server never sends AUTH
        3.15.2-3 every Authentication Method is refused, so that this server never sends AUTH
        4.12.0-2 every Authentication Method is refused, so that this server never sends AUTH
        4.12.0-4 every Authentication Method is refused in CONNECT, so that no exchange ever begins
        4.12.0-5 every Authentication Method is refused, so that neither AUTH nor CONNACK ever names one
        4.12.1-2 every Authentication Method is refused in CONNECT, so that none is ever repeated
        """

    private static let missing311 = ""

    private static let missing5 = ""
}
