package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// nodeConfig is what e2e/xtask writes for one cluster.
type nodeConfig struct {
	// Directory holds all state. Files written here: api-ready, ready, log/NAME.log.
	Directory string `json:"directory"`
	// Kubeconfig of an administrator.
	Kubeconfig string `json:"kubeconfig"`
	// Node is the name under which the kubelet registers.
	Node string `json:"node"`
	// LoadBalancers is the IPv4 range whose addresses LoadBalancer Services get.
	LoadBalancers string `json:"loadBalancers"`
	// Binds are mounted in order, source onto target, in this mount namespace alone.
	Binds []bind `json:"binds"`
	// Components are started at once, or when the API answers if they say so. One that ends is started again.
	Components []component `json:"components"`
}

type bind struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

type component struct {
	Name     string   `json:"name"`
	Argv     []string `json:"argv"`
	NeedsAPI bool     `json:"needsApi"`
}

// restartDelay keeps a component that fails at once from burning a core.
const restartDelay = 300 * time.Millisecond

// runNode is the first process of the cluster's PID namespace. Its standard input ties its life to whoever started it:
// 'n' says that the network is laid, 'k' that the cluster may outlive the starter. End of input before 'k' ends the node,
// and with it (the kernel sees to that) every process, mount and interface of the cluster.
func runNode(args []string) error {
	if len(args) != 1 {
		return errors.New("expects one argument, the path of its configuration")
	}
	raw, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var config nodeConfig
	if err := json.Unmarshal(raw, &config); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if os.Getpid() != 1 {
		return errors.New("must be the first process of a PID namespace of its own")
	}
	if err := prepareNamespace(config.Binds); err != nil {
		return err
	}
	networkLaid := make(chan struct{})
	go followStarter(os.Stdin, networkLaid)
	<-networkLaid

	s := &supervisor{directory: config.Directory, running: map[int]component{}}
	go s.reap()
	for _, c := range config.Components {
		if !c.NeedsAPI {
			s.start(c)
		}
	}
	client, err := connect(config.Kubeconfig)
	if err != nil {
		return err
	}
	ctx := context.Background()
	waitFor("the API server", func() bool { return apiReady(ctx, client) })
	if err := mark(config.Directory, "api-ready"); err != nil {
		return err
	}
	for _, c := range config.Components {
		if c.NeedsAPI {
			s.start(c)
		}
	}
	if err := startAddresses(ctx, client, config.LoadBalancers); err != nil {
		return err
	}
	waitFor("the node", func() bool { return nodeReady(ctx, client, config.Node) })
	if err := mark(config.Directory, "ready"); err != nil {
		return err
	}
	select {}
}

// prepareNamespace hides from the machine what the components write outside their directory.
func prepareNamespace(binds []bind) error {
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	for _, b := range binds {
		for _, directory := range []string{b.Source, b.Target} {
			if err := os.MkdirAll(directory, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(b.Source, b.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s to %s: %w", b.Source, b.Target, err)
		}
	}
	// The kubelet's volumes have to reach the mount namespaces of containers that ask for it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	for _, name := range []string{"ip_forward", "conf/all/route_localnet"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte("1"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func followStarter(input io.Reader, networkLaid chan<- struct{}) {
	buffer := make([]byte, 1)
	for {
		if _, err := io.ReadFull(input, buffer); err != nil {
			log.Print("the starter went away before the cluster was handed over: ending")
			os.Exit(1)
		}
		switch buffer[0] {
		case 'n':
			close(networkLaid)
		case 'k':
			return
		}
	}
}

type supervisor struct {
	directory string
	mutex     sync.Mutex
	running   map[int]component
}

// start runs a component, its output appended to its log. The lock is held until its PID is known, so that reap cannot
// meet a child that it does not know.
func (s *supervisor) start(c component) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := s.startLocked(c); err != nil {
		log.Printf("%s: %v", c.Name, err)
		time.AfterFunc(restartDelay, func() { s.start(c) })
	}
}

func (s *supervisor) startLocked(c component) error {
	path, err := exec.LookPath(c.Argv[0])
	if err != nil {
		return err
	}
	output, err := os.OpenFile(filepath.Join(s.directory, "log", c.Name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer output.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	process, err := os.StartProcess(path, c.Argv, &os.ProcAttr{Dir: s.directory, Files: []*os.File{null, output, output}})
	if err != nil {
		return err
	}
	s.running[process.Pid] = c
	return process.Release()
}

// reap collects every child, among them the orphans that the kernel gives to the first process of a PID namespace.
func (s *supervisor) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil {
			time.Sleep(restartDelay) // ECHILD: nothing runs yet.
			continue
		}
		s.mutex.Lock()
		c, ours := s.running[pid]
		delete(s.running, pid)
		s.mutex.Unlock()
		if ours {
			log.Printf("%s ended (exit status %d, signal %d), starting it again", c.Name, status.ExitStatus(), status.Signal())
			time.AfterFunc(restartDelay, func() { s.start(c) })
		}
	}
}

func connect(kubeconfig string) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = -1, 0
	return kubernetes.NewForConfig(rest.AddUserAgent(config, "kubenode"))
}

func apiReady(ctx context.Context, client *kubernetes.Clientset) bool {
	return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil
}

func nodeReady(ctx context.Context, client *kubernetes.Clientset, name string) bool {
	node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return false
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// waitFor has no limit of its own: the starter has one, and ends this process by closing its input.
func waitFor(what string, done func() bool) {
	started := time.Now()
	for !done() {
		time.Sleep(50 * time.Millisecond)
	}
	log.Printf("%s is ready after %s", what, time.Since(started).Round(time.Millisecond))
}

func mark(directory, name string) error {
	return os.WriteFile(filepath.Join(directory, name), nil, 0o644)
}
