import MQTT
import Testing

@testable import GatewayCore

/// Which profile a client gets. How files are read is the affair of `Settings`.
@Suite("Device profiles: matching")
struct ProfileMatchingTests {
    @Test(
        "A pattern stands for all of a name",
        arguments: [
            ("press-*", "press-12", true), ("press-*", "press-", true), ("press-*", "xpress-1", false),
            ("*", "", true), ("", "", true), ("", "a", false), ("a", "a", true), ("a", "A", false),
            ("*-a-*-b", "x-a-y-a-z-b", true), ("*-a-*-b", "x-a-y-b-z", false), ("?", "", false),
            ("??", "aé", true), ("??", "é", false), ("*é", "café", true), ("a*b*c", "abbbbbc", true),
            ("a*b*c", "abbbbb", false), ("**", "abc", true),
            ("CN=press-*,O=Plant 7", "CN=press-1,O=Plant 7", true),
        ])
    func glob(pattern: String, name: String, agrees: Bool) {
        #expect(Glob(pattern).matches(name) == agrees)
    }

    @Test("All that a match gives must agree, and any match is enough; what is not there agrees with nothing")
    func parts() {
        let certificate = CertificateNames(subject: "CN=press-1", issuer: "CN=Plant 7 CA")
        let device = DeviceNames(
            clientIdentifier: "press-1", username: "press", certificate: certificate, listener: 2)
        let agreeing: [DeviceMatch] = [
            DeviceMatch(clientIdentifier: Glob("press-*")), DeviceMatch(username: Glob("press")),
            DeviceMatch(certificateSubject: Glob("CN=press-*")),
            DeviceMatch(certificateIssuer: Glob("*Plant 7*")),
            DeviceMatch(listener: 2), DeviceMatch(clientIdentifier: Glob("press-*"), listener: 2),
        ]
        for match in agreeing { #expect(match.agrees(with: device)) }
        let others: [DeviceMatch] = [
            DeviceMatch(clientIdentifier: Glob("oven-*")), DeviceMatch(username: Glob("oven")),
            DeviceMatch(certificateSubject: Glob("CN=oven-*")), DeviceMatch(certificateIssuer: Glob("CN=x")),
            DeviceMatch(listener: 1), DeviceMatch(clientIdentifier: Glob("press-*"), listener: 1),
        ]
        for match in others { #expect(!match.agrees(with: device)) }
        let nameless = DeviceNames(clientIdentifier: "press-1")
        #expect(!DeviceMatch(username: Glob("*")).agrees(with: nameless))
        #expect(!DeviceMatch(certificateSubject: Glob("*")).agrees(with: nameless))
        #expect(!DeviceMatch(certificateIssuer: Glob("*")).agrees(with: nameless))
    }

    @Test(
        "Whom the first look passes over would not have agreed: with each device, the first that agrees decides"
    )
    func firstLook() {
        let globs: [Glob?] = [nil, Glob("*"), Glob("press-*"), Glob("*-1*"), Glob("?en-2")]
        let names: [String?] = [nil, "", "press-1", "oven-12", "pen-2", "én-2"]
        var matches: [DeviceMatch] = []
        for client in globs {
            for other in globs {
                matches.append(DeviceMatch(clientIdentifier: client, username: other, listener: 1))
                matches.append(DeviceMatch(clientIdentifier: client, certificateSubject: other))
                matches.append(DeviceMatch(clientIdentifier: client, certificateIssuer: other, listener: 2))
            }
        }
        // Those that say less come last; and two in a profile.
        let tried = Array(matches.reversed())
        var plan = GatewayPlan()
        plan.profiles = stride(from: 0, to: tried.count - 1, by: 2).map {
            DeviceProfile(name: "p\($0)", matches: [tried[$0], tried[$0 + 1]])
        }
        plan.profiles.removeAll { $0.matches.contains(DeviceMatch()) }
        let profiles = Profiles(plan)
        var chosen: Set<String> = []
        for client in names.compactMap({ $0 }) {
            for other in names {
                for listener in 0...2 {
                    let certificate = other.map { CertificateNames(subject: $0, issuer: client) }
                    let device = DeviceNames(
                        clientIdentifier: client, username: listener == 0 ? nil : other,
                        certificate: certificate, listener: listener)
                    let first = plan.profiles.first { $0.matches.contains { $0.agrees(with: device) } }
                    let found = profiles.profile(of: device).profile.name
                    #expect(found == first?.name ?? "default")
                    chosen.insert(found)
                }
            }
        }
        #expect(chosen.count > 5)
    }

    @Test("The first profile that matches decides; without one, the default, or else nothing changes")
    func order() {
        var plan = GatewayPlan()
        let sensors = DeviceProfile(name: "sensors", matches: [DeviceMatch(clientIdentifier: Glob("s-*"))])
        let all = DeviceProfile(name: "all", matches: [DeviceMatch(clientIdentifier: Glob("*-1"))])
        plan.profiles = [sensors, all]
        func name(_ client: String) -> String {
            Profiles(plan).profile(of: DeviceNames(clientIdentifier: client)).profile.name
        }
        #expect(name("s-1") == "sensors")
        #expect(name("x-1") == "all")
        #expect(Profiles(plan).profile(of: DeviceNames(clientIdentifier: "x")).profile == .builtIn)
        plan.profiles = [all, sensors, DeviceProfile(name: "rest")]
        #expect(name("s-1") == "all")
        #expect(name("x") == "rest")
    }

    @Test("A name is put into a topic only where it can be no more than a level")
    func variables() throws {
        let template = try TopicTemplate("${gateway}/${profile}/${clientid}-${username}/#")
        #expect(template.variables == Set(TopicTemplate.Variable.allCases))
        func expanded(_ client: String, _ user: String?) -> String? {
            template.expanded(
                TopicVariables(clientIdentifier: client, username: user, profile: "p", gateway: "g")
            ).map { String(decoding: $0, as: UTF8.self) }
        }
        #expect(expanded("press", "u") == "g/p/press-u/#")
        for bad in ["+", "#", "a/b", "$SYS", "", "a\u{0}b"] {
            #expect(expanded(bad, "u") == nil)
            #expect(expanded("press", bad) == nil)
        }
        #expect(expanded("press", nil) == nil)
        #expect(expanded("press$", "$") == nil)
    }

    @Test(
        "What can be no Topic Filter is told",
        arguments: [
            ("a/${client}", TopicTemplate.Problem.unknownVariable("client")), ("a/${clientid", .unclosed),
            ("a+/b", .notAFilter), ("${clientid}#", .notAFilter), ("#/${clientid}", .notAFilter),
            ("", .notAFilter), ("$share/g/${clientid}", .notAFilter),
        ])
    func problems(text: String, problem: TopicTemplate.Problem) {
        #expect(throws: problem) { try TopicTemplate(text) }
    }

    @Test("A Topic Name has no wildcards")
    func names() throws {
        #expect(throws: TopicTemplate.Problem.notAName) { try TopicTemplate("a/+", as: .name) }
        _ = try TopicTemplate("a/${clientid}/$x", as: .name)
    }

    @Test(
        "[MQTT5-4.7.1-1] a filter covers what matches nothing that it does not, and overlaps what spells a name that it spells",
        arguments: [
            ("#", "a/b", true, true), ("#", "#", true, true), ("a/#", "a", true, true),
            ("a/#", "a/+/b", true, true), ("a/+", "a/b", true, true), ("a/+", "a/#", false, true),
            ("a/b", "a/+", false, true), ("a", "a/#", false, true), ("a/+/c", "a/b/+", false, true),
            ("a/+/c", "a/b/d", false, false), ("a", "b", false, false), ("a/b", "a", false, false),
            ("a", "a/b", false, false), ("+", "/", false, false), ("+/+", "/", true, true),
            ("#", "$SYS/#", false, true), ("+/x", "$SYS/x", false, true), ("$SYS/#", "$SYS/x", true, true),
            ("$SYS/#", "#", false, true), ("$SYS/#", "+/x", false, true),
            ("a/#", "$share/g/a/b", true, true),
            ("a/+/#", "a", false, false), ("a/+/#", "a/b", true, true),
        ])
    func covering(mine: String, theirs: String, covers: Bool, overlaps: Bool) throws {
        let (a, b) = (try #require(TopicFilter(mine)), try #require(TopicFilter(theirs)))
        #expect(a.covers(b) == covers)
        #expect(a.overlaps(b) == overlaps)
        #expect(b.overlaps(a) == overlaps)
    }

    @Test("Ten thousand clients through fifty profiles get the one that is theirs")
    func many() {
        var plan = GatewayPlan()
        plan.profiles = (0..<50).map { n in
            DeviceProfile(
                name: "class-\(n)", matches: [DeviceMatch(clientIdentifier: Glob("class-\(n)-*"))])
        }
        let profiles = Profiles(plan)
        for n in 0..<10_000 {
            let device = DeviceNames(clientIdentifier: "class-\(n % 60)-\(n)")
            let expected = n % 60 < 50 ? "class-\(n % 60)" : "default"
            #expect(profiles.profile(of: device).profile.name == expected)
        }
    }
}
