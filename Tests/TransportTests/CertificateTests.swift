import Foundation
import ServingTypes
import Testing
import Transport

@Suite struct CertificateTests {
    @Test func `an issued certificate says who its process is and where`() throws {
        let certificates = try TestCertificates()
        let peer = PeerIdentity(
            cluster: "home", role: .decodeWorker, instance: InstanceID("decode-worker-1"))
        try certificates.authority.issue(peer, hosts: ["decode.example", "10.0.0.7", "fd00::1"])
        let paths = certificates.authority.paths(of: peer.instance)
        let contents = try CertificateContents(path: paths.certificate)
        #expect(contents.identity == peer)
        #expect(contents.hostNames == ["decode.example"])
        #expect(contents.addresses == ["10.0.0.7", "fd00::1"])
        #expect(!contents.isAuthority)
        #expect((363...364).contains(contents.daysLeft), "\(contents.daysLeft)")
        #expect(try TLSIdentity(paths).peer == peer)
        #expect(try CertificateContents(path: paths.authority).isAuthority)
    }

    @Test func `keys can be read by their owner only`() throws {
        let certificates = try TestCertificates()
        _ = try certificates.identity(.gateway)
        let authority = certificates.authority
        for path in [authority.keyPath, authority.paths(of: InstanceID("one")).key] {
            let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions]
            #expect(mode as? Int == 0o600, "\(path)")
        }
    }

    @Test func `an authority is never overwritten`() throws {
        let certificates = try TestCertificates()
        let before = try Data(contentsOf: URL(filePath: certificates.authority.keyPath))
        #expect(throws: TransportError.self) {
            try certificates.authority.create(cluster: "home")
        }
        let after = try Data(contentsOf: URL(filePath: certificates.authority.keyPath))
        #expect(before == after)
    }

    @Test func `issuing again renews`() throws {
        let certificates = try TestCertificates()
        let peer = PeerIdentity(cluster: "home", role: .gateway, instance: InstanceID("one"))
        let first = try certificates.authority.issue(
            peer, validity: CertificateValidity(start: .zero, length: .seconds(86_400)))
        let second = try certificates.authority.issue(peer)
        #expect(second.notAfter > first.notAfter)
        let paths = certificates.authority.paths(of: peer.instance)
        #expect(try CertificateContents(path: paths.certificate) == second)
        _ = try TLSContext(TLSIdentity(paths))
    }

    @Test(arguments: ["", "a b", "a,DNS:evil", "../up", ".hidden", "ü", "a/b", "ca"])
    func `names that could mean something else are refused`(name: String) throws {
        let certificates = try TestCertificates()
        let peer = PeerIdentity(cluster: "home", role: .gateway, instance: InstanceID(name))
        #expect {
            try certificates.authority.issue(peer)
        } throws: { error in
            guard case .certificateName = error as? TransportError else { return false }
            return true
        }
    }

    @Test func `a host name can't add names`() throws {
        let certificates = try TestCertificates()
        let peer = PeerIdentity(cluster: "home", role: .gateway, instance: InstanceID("one"))
        #expect(throws: TransportError.self) {
            try certificates.authority.issue(peer, hosts: ["a,URI:pdserve://home/scheduler/x"])
        }
    }

    @Test func `faults in files name the file`() throws {
        let certificates = try TestCertificates()
        let other = try TestCertificates()
        _ = try certificates.identity(.gateway)
        _ = try other.identity(.gateway)
        let good = certificates.authority.paths(of: InstanceID("one"))
        let foreign = other.authority.paths(of: InstanceID("one"))

        func pathAtFault(_ change: (inout TLSIdentity.Paths) -> Void) -> String? {
            var paths = good
            change(&paths)
            do throws(TransportError) {
                _ = try TLSIdentity(paths)
                return nil
            } catch {
                guard case .file(let path, _) = error else { return nil }
                return path
            }
        }
        #expect(pathAtFault { $0.key = "/nowhere.key" } == "/nowhere.key")
        #expect(pathAtFault { $0.key = foreign.key } == foreign.key)
        #expect(pathAtFault { $0.key = good.certificate } == good.certificate)
        #expect(pathAtFault { $0.certificate = good.key } == good.key)
        #expect(pathAtFault { $0.authority = foreign.authority } == good.certificate)
        #expect(pathAtFault { $0.certificate = good.authority } == good.key)
        #expect(pathAtFault { _ in } == nil)
    }

    @Test func `an expired certificate stops the process with words`() throws {
        let certificates = try TestCertificates()
        let error = #expect(throws: TransportError.self) {
            try certificates.identity(
                .gateway,
                validity: CertificateValidity(start: .seconds(-7200), length: .seconds(3600)))
        }
        #expect("\(try #require(error))".contains("has expired; issue it again"))
    }
}
